package cmpcmd

import (
	"errors"
	"fmt"
	"os"
	"slices"
)

// settings are the options of a run, and the configuration file they came with.
type settings struct {
	values
	conf  *conf // nil: none
	notes []string
}

// readSettings puts together configuration file and command line; the latter wins.
func readSettings(args []string) (*settings, error) {
	given, err := parseArguments(args)
	if err != nil {
		return nil, err
	}
	s := &settings{values: values{}}
	upfront := values{"config": os.Getenv("OPENSSL_CONF"), "section": "cmp"}
	for _, a := range given {
		if a.option.name == "config" || a.option.name == "section" {
			upfront[a.option.name] = a.value
		}
	}
	if upfront.has("config") && !missingDefault(given, upfront["config"]) {
		if err := s.readConf(upfront["config"], upfront["section"]); err != nil {
			return nil, err
		}
	}
	for _, a := range given {
		if err := s.set(a.option, a.value); err != nil {
			return nil, err
		}
	}
	delete(s.values, "config")
	delete(s.values, "section")
	return s, s.checkRanges()
}

// missingDefault tells whether a file that only the environment names is not there.
func missingDefault(given []argument, path string) bool {
	named := slices.ContainsFunc(given, func(a argument) bool { return a.option.name == "config" })
	_, err := os.Stat(path)
	return !named && errors.Is(err, os.ErrNotExist)
}

// readConf takes the options that the sections of a file give. A section that
// was named must exist; [cmp], the default, need not.
func (s *settings) readConf(path, names string) error {
	c, err := loadConf(path)
	if err != nil {
		return err
	}
	s.conf = c
	sections := splitList(names)
	for _, name := range sections {
		if _, ok := c.sections[name]; ok {
			continue
		}
		if names != "cmp" {
			return fmt.Errorf("configuration file %s: there is no section [%s]", path, name)
		}
		s.notes = append(s.notes, fmt.Sprintf("%s has no section [cmp]: [default] is used", path))
	}
	for _, g := range groups {
		for _, o := range g.options {
			value, ok := c.find(sections, o.name)
			if !ok || o.name == "help" || o.name == "config" || o.name == "section" {
				continue
			}
			if err := s.set(o, value); err != nil {
				return fmt.Errorf("configuration file %s: %w", path, err)
			}
		}
	}
	return nil
}

// ranges are the smallest and largest values of options with a number.
var ranges = []struct {
	name        string
	least, most int
}{
	{"verbosity", 0, 8},
	{"popo", -1, 2},
	{"revreason", -1, 10},
	{"keep_alive", 0, 2},
	{"days", 0, 365 * 100},
	{"repeat", 1, 1_000_000},
}

func (s *settings) checkRanges() error {
	for _, r := range ranges {
		if n := s.number(r.name, r.least); n < r.least || n > r.most {
			return fmt.Errorf("-%s must be between %d and %d", r.name, r.least, r.most)
		}
	}
	total, message := s.number("total_timeout", 0), s.number("msg_timeout", 0)
	switch {
	case s.number("revreason", -1) == 7:
		return fmt.Errorf("-revreason 7 is not a reason (RFC 5280 §5.3.1)")
	case s.number("popo", 1) == 2:
		return fmt.Errorf("-popo 2 is not supported: challenges for decryption keys are not (RFC 9810 §5.2.8.3)")
	case total > 0 && message > total:
		return fmt.Errorf("-msg_timeout %d is above -total_timeout %d", message, total)
	}
	return nil
}
