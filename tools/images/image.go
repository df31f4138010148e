package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"debug/buildinfo"
	"debug/elf"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

const (
	user       = "65532:65532"
	passwd     = "nonroot:x:65532:65532:nonroot:/:/sbin/nologin\n"
	group      = "nonroot:x:65532:\n"
	spdxType   = "application/spdx+json"
	annotation = "org.opencontainers.image."
)

// made is an image that was written.
type made struct {
	digest   v1.Hash
	platform string
	size     int64 // compressed, of everything a node pulls
}

// write makes the image of a binary, and its SBOM, which refers to it.
func write(path, dir, tag string) (made, error) {
	b, err := inspect(path)
	if err != nil {
		return made{}, err
	}
	img, err := image(b)
	if err != nil {
		return made{}, err
	}
	target := filepath.Join(dir, b.name)
	if err := os.RemoveAll(target); err != nil {
		return made{}, err
	}
	p, err := layout.Write(target, empty.Index)
	if err != nil {
		return made{}, err
	}
	if err := p.AppendImage(img, layout.WithPlatform(b.platform), layout.WithAnnotations(map[string]string{annotation + "ref.name": tag})); err != nil {
		return made{}, err
	}
	about, err := sbom(b, img)
	if err != nil {
		return made{}, err
	}
	if err := p.AppendImage(about); err != nil {
		return made{}, err
	}
	return measure(img, b)
}

func measure(img v1.Image, b *program) (m made, err error) {
	m.platform = b.platform.String()
	if m.digest, err = img.Digest(); err != nil {
		return m, err
	}
	manifest, err := img.Manifest()
	if err != nil {
		return m, err
	}
	m.size = manifest.Config.Size
	for _, l := range manifest.Layers {
		m.size += l.Size
	}
	return m, nil
}

// program is an executable and what it says of itself.
type program struct {
	name     string
	content  []byte
	info     *buildinfo.BuildInfo
	platform v1.Platform
}

func inspect(path string) (*program, error) {
	content, err := os.ReadFile(path) // #nosec G304 -- named on the command line
	if err != nil {
		return nil, err
	}
	info, err := buildinfo.Read(bytes.NewReader(content))
	if err != nil {
		return nil, fmt.Errorf("is no Go program: %w", err)
	}
	executable, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return nil, fmt.Errorf("is no program for Linux: %w", err)
	}
	for _, p := range executable.Progs {
		if p.Type == elf.PT_INTERP {
			return nil, errors.New("is linked dynamically, and the image has no libraries: build it with CGO_ENABLED=0")
		}
	}
	return &program{filepath.Base(path), content, info, v1.Platform{OS: setting(info, "GOOS"), Architecture: setting(info, "GOARCH")}}, nil
}

func setting(info *buildinfo.BuildInfo, key string) string {
	for _, s := range info.Settings {
		if s.Key == key {
			return s.Value
		}
	}
	return ""
}

// image holds the program, a user for it, and the roots of public CAs, for issuers and NATS
// servers that are trusted by nothing more special.
func image(b *program) (v1.Image, error) {
	roots, err := layer(file{"etc/passwd", 0o644, []byte(passwd)}, file{"etc/group", 0o644, []byte(group)}, file{"etc/ssl/certs/ca-certificates.crt", 0o644, publicRoots()})
	if err != nil {
		return nil, err
	}
	code, err := layer(file{b.name, 0o755, b.content})
	if err != nil {
		return nil, err
	}
	// The program changes with every version; what is below it is pulled once.
	img, err := mutate.AppendLayers(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON), roots, code)
	if err != nil {
		return nil, err
	}
	labels := map[string]string{
		annotation + "title":    b.name,
		annotation + "source":   "https://github.com/certloop/certloop",
		annotation + "licenses": "Apache-2.0",
		annotation + "version":  b.info.Main.Version,
		annotation + "revision": setting(b.info, "vcs.revision"),
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = b.platform.OS, b.platform.Architecture, v1.Time{Time: time.Unix(0, 0).UTC()}
	config.Config = v1.Config{Entrypoint: []string{"/" + b.name}, User: user, WorkingDir: "/", Labels: labels}
	return mutate.ConfigFile(img, config)
}

// publicRoots are Mozilla's, as Go keeps them. Those that are trusted with reservations are
// left out, because PEM cannot tell the reservation.
func publicRoots() []byte {
	var out bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}) // a Buffer takes everything
		}
	}
	return out.Bytes()
}

// file is a file of a layer.
type file struct {
	path    string
	mode    int64
	content []byte
}

// layer has its directories, root as the owner of everything, and no times.
func layer(files ...file) (v1.Layer, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	dirs := map[string]bool{".": true}
	for _, f := range files {
		if err := addDirs(w, dirs, filepath.Dir(f.path)); err != nil {
			return nil, err
		}
		if err := w.WriteHeader(&tar.Header{Name: f.path, Mode: f.mode, Size: int64(len(f.content)), Typeflag: tar.TypeReg}); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.content); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	opener := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(out.Bytes())), nil }
	return tarball.LayerFromOpener(opener, tarball.WithMediaType(types.OCILayer))
}

func addDirs(w *tar.Writer, have map[string]bool, dir string) error {
	if have[dir] {
		return nil
	}
	have[dir] = true
	return cmp.Or(addDirs(w, have, filepath.Dir(dir)), w.WriteHeader(&tar.Header{Name: dir + "/", Mode: 0o755, Typeflag: tar.TypeDir}))
}

// sbom is an artifact with what the program is made of, and its image as the subject.
func sbom(b *program, of v1.Image) (v1.Image, error) {
	document, err := spdx(b)
	if err != nil {
		return nil, err
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), spdxType)
	img, err = mutate.AppendLayers(img, static.NewLayer(document, spdxType))
	if err != nil {
		return nil, err
	}
	subject, err := partial.Descriptor(of)
	if err != nil {
		return nil, err
	}
	about, ok := mutate.Subject(img, *subject).(v1.Image)
	if !ok {
		return nil, errors.New("an image with a subject is no image")
	}
	return about, nil
}
