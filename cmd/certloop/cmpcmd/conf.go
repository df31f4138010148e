package cmpcmd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Limits on configuration files.
const (
	maxConfBytes  = 1 << 20 // of a file
	maxConfValue  = 1 << 16 // of a value, in bytes, once its variables are expanded
	maxIncludes   = 64      // files, all together
	defaultedName = "default"
)

// conf is a configuration file in OpenSSL's format (config(5)): sections of
// names and values. What comes before the first section belongs to [default].
type conf struct {
	sections map[string][]entry
	section  string // the one the next line is in
	included int    // files
}

// entry is a name and its value.
type entry struct{ name, value string }

// loadConf reads a configuration file.
func loadConf(path string) (*conf, error) {
	c := newConf()
	if err := c.load(path); err != nil {
		return nil, fmt.Errorf("configuration file: %w", err)
	}
	return c, nil
}

func newConf() *conf {
	return &conf{sections: map[string][]entry{defaultedName: nil}, section: defaultedName}
}

// load reads a file. It goes on in the section where what included it was, and
// leaves behind the one it ends in, as OpenSSL has it.
func (c *conf) load(path string) error {
	text, err := readFile(path, maxConfBytes)
	if err != nil {
		return err
	}
	if err := c.parse(string(text)); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func parseConf(text string) (*conf, error) {
	c := newConf()
	return c, c.parse(text)
}

func (c *conf) parse(text string) error {
	lines := strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		start := i
		line := lines[i]
		for continued(line) && i+1 < len(lines) {
			i++
			line = line[:len(line)-1] + lines[i]
		}
		if err := c.line(strings.TrimSpace(uncommented(line))); err != nil {
			return fmt.Errorf("line %d: %w", start+1, err)
		}
	}
	return nil
}

// include reads a file, or all files of a directory that end in .cnf or .conf. A
// path that is not rooted is below OPENSSL_CONF_INCLUDE, if that is set (config(5)).
func (c *conf) include(path string) error {
	if dir := os.Getenv("OPENSSL_CONF_INCLUDE"); dir != "" && !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	paths := []string{path}
	if entries, err := os.ReadDir(path); err == nil {
		paths = nil
		for _, e := range entries { // sorted
			if kind := filepath.Ext(e.Name()); kind == ".cnf" || kind == ".conf" {
				paths = append(paths, filepath.Join(path, e.Name()))
			}
		}
	}
	for _, path := range paths {
		if c.included++; c.included > maxIncludes {
			return fmt.Errorf(".include: more than %d files", maxIncludes)
		}
		if err := c.load(path); err != nil {
			return fmt.Errorf(".include: %w", err)
		}
	}
	return nil
}

// continued tells whether a line ends in a backslash that is not escaped itself.
func continued(line string) bool {
	n := len(line) - len(strings.TrimRight(line, `\`))
	return n%2 == 1
}

// uncommented cuts a comment off a line.
func uncommented(line string) string {
	quote := byte(0)
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '\\':
			i++
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'' || c == '`':
			quote = c
		case c == '#':
			return line[:i]
		}
	}
	return line
}

// line takes one line.
func (c *conf) line(line string) error {
	switch {
	case line == "":
		return nil
	case line[0] == '[':
		name, rest, closed := strings.Cut(line[1:], "]")
		name = strings.TrimSpace(name)
		if !closed || name == "" || strings.TrimSpace(rest) != "" {
			return errors.New("not a [section]")
		}
		c.sections[name] = append([]entry{}, c.sections[name]...)
		c.section = name
		return nil
	case line[0] == '.':
		return c.directive(line)
	}
	name, value, found := strings.Cut(line, "=")
	name = strings.TrimSpace(name)
	if !found || name == "" {
		return errors.New("neither a [section] nor name = value")
	}
	in := c.section
	if s, n, qualified := strings.Cut(name, "::"); qualified {
		in, name = s, n
	}
	value, err := c.expand(c.section, strings.TrimSpace(value))
	if err != nil {
		return err
	}
	c.put(in, entry{name, value})
	return nil
}

// directive takes .include PATH or .include = PATH; there are no others that change what we read.
func (c *conf) directive(line string) error {
	rest, isInclude := strings.CutPrefix(line, ".include")
	if !isInclude {
		return fmt.Errorf("%.20q is not supported: .include is", strings.Fields(line)[0])
	}
	path, err := c.expand(c.section, strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(rest), "=")))
	if err != nil {
		return err
	}
	if path == "" {
		return errors.New(".include names no file")
	}
	return c.include(path)
}

// put sets a name; the last one of a name counts, in the place of the first.
func (c *conf) put(section string, e entry) {
	for i, old := range c.sections[section] {
		if old.name == e.name {
			c.sections[section][i] = e
			return
		}
	}
	c.sections[section] = append(c.sections[section], e)
}

// lookup finds a name in a section.
func (c *conf) lookup(section, name string) (string, bool) {
	for _, e := range c.sections[section] {
		if e.name == name {
			return e.value, true
		}
	}
	return "", false
}

// find looks a name up in sections, the last one first, and then in [default].
func (c *conf) find(sections []string, name string) (string, bool) {
	for _, section := range slices.Backward(sections) {
		if value, ok := c.lookup(section, name); ok {
			return value, true
		}
	}
	return c.lookup(defaultedName, name)
}

// expand takes quotes and escapes out of a value and puts in what variables stand for.
func (c *conf) expand(section, value string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(value); {
		used, err := c.expandOne(&b, section, value[i:])
		if err != nil {
			return "", err
		}
		i += used
		if b.Len() > maxConfValue {
			return "", fmt.Errorf("a value of more than %d bytes", maxConfValue)
		}
	}
	return b.String(), nil
}

// expandOne writes what the beginning of s stands for and tells how much of s that was.
func (c *conf) expandOne(b *strings.Builder, section, s string) (int, error) {
	switch s[0] {
	case '"', '\'', '`':
		return quoted(b, s)
	case '\\':
		if len(s) == 1 {
			return 1, nil
		}
		b.WriteByte(escaped(s[1]))
		return 2, nil
	case '$':
		value, used, err := c.variable(section, s)
		b.WriteString(value)
		return used, err
	}
	b.WriteByte(s[0])
	return 1, nil
}

func quoted(b *strings.Builder, s string) (int, error) {
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == s[0]:
			return i + 1, nil
		case s[i] == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		default:
			b.WriteByte(s[i])
		}
	}
	return 0, fmt.Errorf("a quotation mark %c without its second", s[0])
}

func escaped(c byte) byte {
	switch c {
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	case 'b':
		return '\b'
	}
	return c
}

// variable is the value of $name, ${name}, $(name) or $section::name.
func (c *conf) variable(section, s string) (value string, used int, err error) {
	name := s[1:]
	switch {
	case strings.HasPrefix(name, "{"), strings.HasPrefix(name, "("):
		end := strings.IndexByte(name, map[byte]byte{'{': '}', '(': ')'}[name[0]])
		if end < 0 {
			return "", 0, errors.New("a variable without a closing brace")
		}
		name, used = strings.TrimSpace(name[1:end]), end+2
	default:
		name = name[:identifier(name)]
		used = 1 + len(name)
	}
	if from, n, qualified := strings.Cut(name, "::"); qualified {
		section, name = from, n
	}
	value, ok := c.variableIn(section, name)
	if !ok {
		return "", 0, fmt.Errorf("variable $%s::%s has no value", section, name)
	}
	return value, used, nil
}

// variableIn looks in a section, in [default], and for ENV in the environment.
func (c *conf) variableIn(section, name string) (string, bool) {
	if section == "ENV" {
		return os.LookupEnv(name)
	}
	return c.find([]string{section}, name)
}

// identifier is the length of the name s begins with, its section included.
func identifier(s string) int {
	n := letters(s)
	if strings.HasPrefix(s[n:], "::") {
		n += 2 + letters(s[n+2:])
	}
	return n
}

func letters(s string) int {
	rest := strings.TrimLeft(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
	return len(s) - len(rest)
}
