package responder

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const (
	transactionsDir = "transactions"
	recordSuffix    = ".json"
	dirMode         = 0o700
)

// files stores records, one file each. A nil *files stores nothing.
type files struct{ dir string }

func openFiles(dir string) (*files, error) {
	f := &files{dir: filepath.Join(dir, transactionsDir)}
	if err := os.MkdirAll(f.dir, dirMode); err != nil {
		return nil, fmt.Errorf("opening the ledger: %w", err)
	}
	return f, nil
}

func (f *files) path(r *record) string { return filepath.Join(f.dir, r.name()+recordSuffix) }

// save replaces the file of a record. It survives the end of the process; the
// power may take the last moments with it.
func (f *files) save(r *record) error {
	if f == nil {
		return nil
	}
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encoding transaction %s: %w", r.name(), err)
	}
	return replaceFile(f.path(r), text)
}

func (f *files) remove(r *record) {
	if f != nil {
		_ = os.Remove(f.path(r)) // one left behind is a transaction remembered longer
	}
}

func (f *files) load() ([]*record, error) {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return nil, fmt.Errorf("reading the ledger: %w", err)
	}
	var records []*record
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), recordSuffix) {
			continue
		}
		r, err := f.read(e.Name())
		if err != nil {
			return nil, err
		}
		records = append(records, r)
	}
	return records, nil
}

func (f *files) read(name string) (*record, error) {
	text, err := os.ReadFile(filepath.Join(f.dir, name))
	if err != nil {
		return nil, fmt.Errorf("reading the ledger: %w", err)
	}
	r := new(record)
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("reading the ledger: %s: %w", name, err)
	}
	if r.name()+recordSuffix != name || (r.Issued == nil) != (r.State == stateWaiting) {
		return nil, fmt.Errorf("reading the ledger: %s is not what its name and state say", name)
	}
	return r, nil
}

// replaceFile writes a file under another name first, so that the old or the new
// content is there whenever the process ends.
func replaceFile(path string, content []byte) error {
	t, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	_, err = t.Write(content)
	err = errors.Join(err, t.Close())
	if err == nil {
		err = os.Rename(t.Name(), path)
	}
	if err != nil {
		err = fmt.Errorf("writing %s: %w", path, errors.Join(err, ignoreMissing(os.Remove(t.Name()))))
	}
	return err
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
