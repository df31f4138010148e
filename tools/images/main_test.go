package main

import (
	"archive/tar"
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// build compiles this very command, somewhere else each time.
func build(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "images")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

// layouts runs the command and returns its output and the directory of the layouts.
func layouts(t *testing.T, programs ...string) (string, string) {
	t.Helper()
	dir := t.TempDir()
	var out bytes.Buffer
	if err := run(append([]string{"-out", dir, "-tag", "v1"}, programs...), &out); err != nil {
		t.Fatal(err)
	}
	return out.String(), dir
}

func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		all[strings.TrimPrefix(path, dir)] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Built twice, in two places, everything is the same: no time, path or chance gets in.
func TestReproducible(t *testing.T) {
	said, first := layouts(t, build(t))
	again, second := layouts(t, build(t))
	if said != again {
		t.Errorf("first\n%sthen\n%s", said, again)
	}
	if a := files(t, first); len(a) < 8 || !maps.Equal(a, files(t, second)) {
		t.Errorf("the %d files of two builds differ", len(a))
	}
}

// product compiles certloop and a function as `make images` does, out of a directory of sources.
func product(t *testing.T, sources string) (programs []string) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"cmd/certloop", "functions/enroll"} {
		path := filepath.Join(dir, filepath.Base(name))
		cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", path, "./"+name)
		cmd.Dir, cmd.Env = sources, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		programs = append(programs, path)
	}
	return programs
}

// sources copies what the product is made of to another place.
func sources(t *testing.T, root string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"cmd", "functions", "pkg", "deploy"} {
		if err := os.CopyFS(filepath.Join(dir, name), os.DirFS(filepath.Join(root, name))); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		content, err := os.ReadFile(filepath.Join(root, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), content, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// The images of the product are the same, to the digest and every byte of the layouts, whoever
// builds them where.
func TestProductIsReproducible(t *testing.T) {
	const root = "../.."
	said, first := layouts(t, product(t, root)...)
	again, second := layouts(t, product(t, sources(t, root))...)
	if said != again || strings.Count(said, "sha256:") != 2 {
		t.Errorf("first\n%sthen\n%s", said, again)
	}
	if a := files(t, first); len(a) < 16 || !maps.Equal(a, files(t, second)) {
		t.Errorf("the %d files of two builds differ", len(a))
	}
	index := "/enroll/index.json"
	if a, b := files(t, first)[index], files(t, second)[index]; a == "" || a != b {
		t.Errorf("the indexes differ:\n%s\n%s", a, b)
	}
	t.Logf("both times\n%s", said)
}

// images are the program's and its SBOM's.
func images(t *testing.T, dir string) (image, about v1.Image) {
	t.Helper()
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index); err != nil {
		t.Error(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(manifest.Manifests) != 2 {
		t.Fatalf("%d manifests, want 2", len(manifest.Manifests))
	}
	if got := manifest.Manifests[0].Annotations["org.opencontainers.image.ref.name"]; got != "v1" {
		t.Errorf("the image's tag is %q", got)
	}
	var all []v1.Image
	for _, d := range manifest.Manifests {
		img, err := index.Image(d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, img)
	}
	return all[0], all[1]
}

// What is in it: the program, a user and roots, all of it root's and for nobody to write.
func TestImage(t *testing.T) {
	program := build(t)
	said, dir := layouts(t, program)
	img, _ := images(t, filepath.Join(dir, "images"))
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if c := config.Config; c.User != "65532:65532" || !slices.Equal(c.Entrypoint, []string{"/images"}) || config.OS != "linux" || config.Architecture == "" {
		t.Errorf("the configuration is %+v", config)
	}
	found := map[string]int64{}
	r := tar.NewReader(mutate.Extract(img))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		found[h.Name] = h.Size
		if h.Uid != 0 || h.Mode&0o022 != 0 || h.ModTime.Unix() > 0 {
			t.Errorf("%s: owner %d, mode %o, time %v", h.Name, h.Uid, h.Mode, h.ModTime)
		}
	}
	info, err := os.Stat(program)
	if err != nil {
		t.Fatal(err)
	}
	if found["images"] != info.Size() || found["etc/passwd"] == 0 || found["etc/ssl/certs/ca-certificates.crt"] < 100_000 {
		t.Errorf("it holds %v", found)
	}
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if values := files(t, dir)["/values.yaml"]; values != "image:\n  digests:\n    images: "+digest.String()+"\n" || !strings.Contains(said, digest.String()) {
		t.Errorf("neither %q nor %q has %s", values, said, digest)
	}
}

// The SBOM lists what the program says of itself, and refers to the image.
func TestSBOM(t *testing.T) {
	program := build(t)
	_, dir := layouts(t, program)
	img, about := images(t, filepath.Join(dir, "images"))
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := about.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	if manifest.Subject == nil || manifest.Subject.Digest != digest || string(manifest.Config.MediaType) != spdxType {
		t.Fatalf("it is about %v", manifest.Subject)
	}
	layers, err := about.Layers()
	if err != nil {
		t.Fatal(err)
	}
	content, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	var d spdxDocument
	if err := json.NewDecoder(content).Decode(&d); err != nil {
		t.Fatal(err)
	}
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{info.Main.Path + "@" + info.Main.Version, "stdlib@" + strings.TrimPrefix(info.GoVersion, "go")}
	for _, m := range info.Deps {
		want = append(want, m.Path+"@"+m.Version)
	}
	var got []string
	ids := map[string]bool{}
	for _, p := range d.Packages {
		got = append(got, p.Name+"@"+p.VersionInfo)
		ids[p.SPDXID] = true
	}
	if len(got) < 5 || !slices.Equal(got, want) || len(ids) != len(got) {
		t.Errorf("it lists %q, want %q", got, want)
	}
	for _, r := range d.Relationships {
		if !ids[r.To] {
			t.Errorf("%v leads nowhere", r)
		}
	}
}

func TestRefused(t *testing.T) {
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	dynamic := filepath.Join(t.TempDir(), "dynamic")
	content, err := os.ReadFile(build(t))
	if err != nil {
		t.Fatal(err)
	}
	// The first program header becomes one that names an interpreter (ELF-64: e_phoff is at 32).
	binary.NativeEndian.PutUint32(content[binary.NativeEndian.Uint64(content[32:]):], uint32(elf.PT_INTERP))
	if err := os.WriteFile(dynamic, content, 0o700); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{script: "no Go program", dynamic: "linked dynamically", "/nowhere": "no such file"} {
		err := run([]string{"-out", t.TempDir(), path}, io.Discard)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", filepath.Base(path), err, want)
		}
	}
	if err := run(nil, io.Discard); err == nil {
		t.Error("nothing was made into an image")
	}
}
