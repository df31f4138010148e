package state

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// Listen opens the server's loopback listener and remembers its port. Port 0
// takes the port of the last start when it is free, so that kubeconfigs already
// handed out stay good, and otherwise one the kernel picks.
func (d *Dir) Listen(ctx context.Context, port int) (net.Listener, error) {
	l, err := d.listen(ctx, port)
	if err != nil {
		return nil, fmt.Errorf("listener: %w", err)
	}
	picked := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	if err := replaceFile(d.Path("port"), []byte(picked+"\n")); err != nil {
		return nil, errors.Join(fmt.Errorf("remembering the port: %w", err), l.Close())
	}
	return l, nil
}

func (d *Dir) listen(ctx context.Context, port int) (net.Listener, error) {
	if port != 0 {
		return listenLoopback(ctx, port)
	}
	l, err := listenLoopback(ctx, d.lastPort())
	if errors.Is(err, syscall.EADDRINUSE) {
		return listenLoopback(ctx, 0)
	}
	return l, err
}

// lastPort is 0 when there was no earlier start, or its note is unreadable.
func (d *Dir) lastPort() int {
	b, err := os.ReadFile(d.Path("port"))
	if err != nil {
		return 0
	}
	port, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 16)
	if err != nil {
		return 0
	}
	return int(port)
}

func listenLoopback(ctx context.Context, port int) (net.Listener, error) {
	var lc net.ListenConfig
	return lc.Listen(ctx, "tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
}
