package cmpcmd

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/term"
)

// maxSecret bounds a pass phrase or secret, in bytes, as OpenSSL does.
const maxSecret = 1024

// passwords reads pass phrases and secrets from where options say
// (openssl-passphrase-options(1)). None of its errors repeats one.
type passwords struct {
	stdin  *bufio.Reader
	input  io.Reader // what stdin reads
	prompt io.Writer
	batch  bool
	log    *reporter
	known  map[string][]byte // by option: several files may need one, which is read once
}

func newPasswords(stdin io.Reader, prompt io.Writer, batch bool, log *reporter) *passwords {
	return &passwords{stdin: bufio.NewReader(stdin), input: stdin, prompt: prompt, batch: batch, log: log, known: map[string][]byte{}}
}

// from reads the secret that the source given with an option names.
func (p *passwords) from(option, source string) ([]byte, error) {
	if secret, ok := p.known[option]; ok {
		return secret, nil
	}
	secret, err := p.read(option, source)
	switch {
	case err != nil:
		return nil, fmt.Errorf("-%s: %w", option, err)
	case len(secret) > maxSecret:
		return nil, fmt.Errorf("-%s: more than %d bytes", option, maxSecret)
	}
	p.known[option] = []byte(secret)
	return p.known[option], nil
}

func (p *passwords) read(option, source string) (string, error) {
	kind, rest, found := strings.Cut(source, ":")
	switch {
	case source == "stdin":
		return firstLine(p.stdin)
	case found && kind == "pass":
		return rest, nil
	case found && kind == "env":
		value, ok := os.LookupEnv(rest)
		if !ok {
			return "", fmt.Errorf("there is no environment variable %s", rest)
		}
		return value, nil
	case found && kind == "file":
		return fromFile(rest)
	case found && kind == "fd":
		return fromDescriptor(rest)
	}
	p.log.warn("-%s names no source: its value is taken as the secret itself (better precede it with pass:)", option)
	return source, nil
}

func fromFile(path string) (string, error) {
	f, err := os.Open(path) //nolint:gosec // the user named it
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	return firstLine(bufio.NewReader(f))
}

// fromDescriptor reads from a descriptor we were started with, which stays open.
func fromDescriptor(text string) (string, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", fmt.Errorf("fd:%.10s is not a file descriptor", text)
	}
	return fromFile(fmt.Sprintf("/dev/fd/%d", n))
}

// firstLine is the next line without its end. There must be one.
func firstLine(r *bufio.Reader) (string, error) {
	var line []byte
	for len(line) <= maxSecret {
		c, err := r.ReadByte()
		end := errors.Is(err, io.EOF)
		switch {
		case end && len(line) == 0:
			return "", errors.New("there is nothing to read")
		case end || err == nil && c == '\n':
			return string(line), nil
		case err != nil:
			return "", err
		}
		line = append(line, c)
	}
	return "", fmt.Errorf("a line of more than %d bytes", maxSecret)
}

// ask asks for a pass phrase on the terminal.
func (p *passwords) ask(what string) ([]byte, error) {
	f, ok := p.input.(*os.File)
	if p.batch || !ok || !term.IsTerminal(int(f.Fd())) {
		return nil, fmt.Errorf("%s is encrypted, and no option gives its pass phrase", what)
	}
	_, _ = fmt.Fprintf(p.prompt, "Enter pass phrase for %s:", what)
	defer func() { _, _ = fmt.Fprintln(p.prompt) }()
	return term.ReadPassword(int(f.Fd()))
}
