package state

import (
	"encoding/base64"
	"fmt"
	"net"
)

// kubeconfig of the one user, who may do everything.
const kubeconfig = `apiVersion: v1
kind: Config
current-context: kubeapi
clusters:
- name: kubeapi
  cluster:
    server: %s
    certificate-authority-data: %s
users:
- name: admin
  user:
    token: %s
contexts:
- name: kubeapi
  context:
    cluster: kubeapi
    user: admin
`

// Kubeconfig is the admin's, for a server listening on addr.
func (d *Dir) Kubeconfig(addr net.Addr) []byte {
	return fmt.Appendf(nil, kubeconfig, "https://"+addr.String(), base64.StdEncoding.EncodeToString(d.pki.ca), d.pki.token)
}

// WriteKubeconfig publishes a kubeconfig in the directory and returns its path.
// Readers never see half of it.
func (d *Dir) WriteKubeconfig(content []byte) (string, error) {
	path := d.Path("kubeconfig")
	if err := replaceFile(path, content); err != nil {
		return "", fmt.Errorf("kubeconfig: %w", err)
	}
	return path, nil
}
