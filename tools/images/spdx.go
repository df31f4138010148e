package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"regexp"
	"runtime/debug"
	"strings"
)

// spdxDocument is what is used here of SPDX 2.3.
type spdxDocument struct {
	SPDXVersion       string             `json:"spdxVersion"`
	DataLicense       string             `json:"dataLicense"`
	SPDXID            string             `json:"SPDXID"`
	Name              string             `json:"name"`
	DocumentNamespace string             `json:"documentNamespace"`
	CreationInfo      spdxCreation       `json:"creationInfo"`
	Packages          []spdxPackage      `json:"packages"`
	Relationships     []spdxRelationship `json:"relationships"`
}

type spdxCreation struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

type spdxPackage struct {
	SPDXID           string         `json:"SPDXID"`
	Name             string         `json:"name"`
	VersionInfo      string         `json:"versionInfo"`
	DownloadLocation string         `json:"downloadLocation"`
	FilesAnalyzed    bool           `json:"filesAnalyzed"`
	ExternalRefs     []spdxRef      `json:"externalRefs"`
	Checksums        []spdxChecksum `json:"checksums,omitempty"`
}

type spdxRef struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type spdxChecksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type spdxRelationship struct {
	From string `json:"spdxElementId"`
	Kind string `json:"relationshipType"`
	To   string `json:"relatedSpdxElement"`
}

// spdx lists the modules that the program says it was built from. A program that is the
// same has the same document, so that the time is not that of today.
func spdx(b *program) ([]byte, error) {
	sum := sha256.Sum256(b.content)
	created := setting(b.info, "vcs.time")
	if created == "" {
		created = "1970-01-01T00:00:00Z"
	}
	main := golang(b.info.Main.Path, b.info.Main.Version)
	main.Checksums = []spdxChecksum{{"SHA256", hex.EncodeToString(sum[:])}}
	d := spdxDocument{
		SPDXVersion: "SPDX-2.3", DataLicense: "CC0-1.0", SPDXID: "SPDXRef-DOCUMENT", Name: b.name,
		DocumentNamespace: "https://github.com/certloop/certloop/sbom/" + b.name + "-" + hex.EncodeToString(sum[:]),
		CreationInfo:      spdxCreation{created, []string{"Tool: certloop-images"}},
		Packages:          []spdxPackage{main},
		Relationships:     []spdxRelationship{{"SPDXRef-DOCUMENT", "DESCRIBES", main.SPDXID}},
	}
	for _, p := range dependencies(b.info) {
		d.Packages = append(d.Packages, p)
		d.Relationships = append(d.Relationships, spdxRelationship{main.SPDXID, "DEPENDS_ON", p.SPDXID})
	}
	return json.MarshalIndent(d, "", " ")
}

func dependencies(info *buildinfo.BuildInfo) []spdxPackage {
	all := []spdxPackage{golang("stdlib", strings.TrimPrefix(info.GoVersion, "go"))}
	for _, m := range info.Deps {
		m = used(m)
		all = append(all, golang(m.Path, m.Version))
	}
	return all
}

// used is what a module was replaced by.
func used(m *debug.Module) *debug.Module {
	if m.Replace != nil {
		return m.Replace
	}
	return m
}

var notInID = regexp.MustCompile(`[^A-Za-z0-9.-]+`)

func golang(module, version string) spdxPackage {
	return spdxPackage{
		SPDXID: "SPDXRef-" + notInID.ReplaceAllString(module+"-"+version, "-"),
		Name:   module, VersionInfo: version, DownloadLocation: "NOASSERTION",
		ExternalRefs: []spdxRef{{"PACKAGE-MANAGER", "purl", "pkg:golang/" + module + "@" + version}},
	}
}
