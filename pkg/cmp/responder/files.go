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
	newSuffix       = ".new" // of files not yet in place
	dirMode         = 0o700
	fileMode        = 0o600
)

// openDir makes a directory and opens it. It is closed when nobody refers to it any more.
func openDir(path string) (*os.Root, error) {
	if err := os.MkdirAll(path, dirMode); err != nil {
		return nil, err
	}
	return os.OpenRoot(path)
}

// files stores records, one file each. A nil *files stores nothing.
type files struct{ dir *os.Root }

func openFiles(dir *os.Root) (*files, error) {
	if err := dir.MkdirAll(transactionsDir, dirMode); err != nil {
		return nil, fmt.Errorf("opening the ledger: %w", err)
	}
	return &files{dir: dir}, nil
}

func fileOf(r *record) string { return filepath.Join(transactionsDir, r.name()+recordSuffix) }

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
	return replaceFile(f.dir, fileOf(r), text)
}

func (f *files) remove(r *record) {
	if f != nil {
		_ = f.dir.Remove(fileOf(r)) // one left behind is a transaction remembered longer
	}
}

func (f *files) load() ([]*record, error) {
	entries, err := fs.ReadDir(f.dir.FS(), transactionsDir)
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
			return nil, fmt.Errorf("reading the ledger: %s: %w", filepath.Join(f.dir.Name(), transactionsDir, e.Name()), err)
		}
		records = append(records, r)
	}
	return records, nil
}

func (f *files) read(name string) (*record, error) {
	text, err := f.dir.ReadFile(filepath.Join(transactionsDir, name))
	if err != nil {
		return nil, err
	}
	r := new(record)
	if err := json.Unmarshal(text, r); err != nil {
		return nil, err
	}
	if r.name()+recordSuffix != name || (r.Issued == nil) != (r.State == stateWaiting) {
		return nil, errors.New("not what its name and its state say")
	}
	return r, nil
}

// replaceFile writes a file under another name first, so that the old or the new
// content is there whenever the process ends.
func replaceFile(dir *os.Root, name string, content []byte) error {
	err := dir.WriteFile(name+newSuffix, content, fileMode)
	if err == nil {
		err = dir.Rename(name+newSuffix, name)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", filepath.Join(dir.Name(), name), err)
	}
	return nil
}
