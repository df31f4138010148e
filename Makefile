# certloop's commands; `make` alone shows them. Go, git, gcc and make are enough: the rest
# is built, or named with the command that installs it.

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS   += --no-builtin-rules --no-print-directory
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# One set of flags for everything, so that each of the thousand packages that the product,
# its tests and the API server share is compiled once. Static, reproducible binaries; no
# debug information, which is a sixth of the compiler's work (`go test` without make has it).
export CGO_ENABLED := 0
export GOFLAGS     := $(strip $(shell go env GOFLAGS) -trimpath -gcflags=all=-dwarf=false)

FUNCTIONS := enroll renew watch-secrets expiry-scan
BINARIES  := $(addprefix bin/,certloop $(FUNCTIONS))
MODULES   := . $(patsubst %/go.mod,%,$(wildcard tools/go.mod tools/*/go.mod test/*/go.mod))
PEERS     := $(patsubst %/Makefile,%,$(wildcard test/peers/*/Makefile))

# What a binary is made of. Directories are in it for the files that vanish from them.
sources = $(shell find $(1) ! -name '*_test.go' ! -path '*/testdata*' ! -name '*.md')
PRODUCT := go.mod go.sum $(call sources,cmd functions pkg deploy)
KUBEAPI := $(call sources,test/kubeapi)

# Kubernetes' version is that of the module; clients that ask for it compare it.
KUBERNETES_VERSION = $(shell sed -n 's/^\tk8s.io\/kubernetes v\(.*\)/\1/p' test/kubeapi/go.mod)
KUBERNETES_LDFLAGS = $(addprefix -X k8s.io/component-base/version.,gitVersion=v$(KUBERNETES_VERSION) \
	gitMajor=$(word 1,$(subst ., ,$(KUBERNETES_VERSION))) gitMinor=$(word 2,$(subst ., ,$(KUBERNETES_VERSION))))

# The version of the chart and its images.
VERSION  = $(shell sed -n 's/^appVersion: //p' charts/certloop/Chart.yaml)

TOOL     := go tool -modfile=$(CURDIR)/tools/go.mod
FUZZTIME ?= 30s
# Of the targets that are not about messages, transactions, MACs, names and HTTP.
OTHERTIME ?= $(FUZZTIME)
# Where `make send-…` finds the function.
URL      ?= http://127.0.0.1:8080

.PHONY: help
help: ## show this
	@sed -n 's/^\([a-z%-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20
	@echo 'Variables: ARGS="…" for run and test, FUZZTIME=$(FUZZTIME), URL=$(URL) for send.'

##— run ————————————————————————————————————————————————————————————————————————————————

.PHONY: run
run: bin/certloop $(wildcard bin/kubeapi) ## see all of certloop work on this machine (the first time compiles a Kubernetes API server)
	bin/certloop dev $(ARGS)

.PHONY: send-%
send-%: ## POST functions/%/testdata/*.json to a running function: make send-enroll URL=http://127.0.0.1:8080
	@ls functions/$*/testdata/*.json >/dev/null
	@for event in functions/$*/testdata/*.json; do \
		printf '%s: ' "$$event"; \
		curl --silent --show-error --fail-with-body --max-time 120 --write-out '%{http_code}\n' \
			--header 'Content-Type: application/cloudevents+json' --data-binary "@$$event" '$(URL)'; \
	done

##— build ——————————————————————————————————————————————————————————————————————————————

.PHONY: build
build: $(BINARIES) ## build certloop and the four functions into bin/

bin/certloop: $(PRODUCT)
	go build -ldflags='-s -w' -o $@ ./cmd/certloop

$(addprefix bin/,$(FUNCTIONS)): bin/%: $(PRODUCT)
	go build -ldflags='-s -w' -o $@ ./functions/$*

.PHONY: images
images: $(BINARIES) ## make a container image of certloop and of each function in bin/images (OCI layouts; no registry or engine)
	go -C tools/images run . -out $(CURDIR)/bin/images -tag $(VERSION) $(abspath $(BINARIES))

.PHONY: chart
chart: ## write what the chart takes from the source, and the chart rendered into deploy/knative
	go -C test/chart test -count=1 -run '^(TestEvents|TestNATSSubjects|TestRightsFollowTheREADMEs|TestRendered)$$' -update .

.PHONY: kubeapi
kubeapi: bin/kubeapi ## build the Kubernetes API server that tests and run use

bin/kubeapi: $(KUBEAPI)
	@echo 'compiling kube-apiserver $(KUBERNETES_VERSION) (the first time takes 5 to 7 minutes on two cores)…'
	go -C test/kubeapi build -buildvcs=false -ldflags='-s -w $(KUBERNETES_LDFLAGS)' -o $(CURDIR)/$@ .

.PHONY: kubectl
kubectl: bin/kubectl ## build kubectl from the same source, for machines that have none

bin/kubectl: test/kubeapi/go.mod
	@echo 'compiling kubectl $(KUBERNETES_VERSION)…'
	go -C test/kubeapi build -buildvcs=false -ldflags='-s -w $(KUBERNETES_LDFLAGS)' -o $(CURDIR)/$@ k8s.io/kubernetes/cmd/kubectl

# Knative's own programs, which the tests run as they are.
KNATIVE := $(addprefix bin/knative/,apiserver_receive_adapter eventing-webhook filter ingress kncontrol mtping serving-webhook)

bin/knative/kncontrol: $(wildcard test/knative/kncontrol/*.go)
bin/knative/kncontrol:                 program := ./kncontrol
bin/knative/apiserver_receive_adapter: program := knative.dev/eventing/cmd/apiserver_receive_adapter
bin/knative/mtping:                    program := knative.dev/eventing/cmd/mtping
bin/knative/filter:                    program := knative.dev/eventing/cmd/broker/filter
bin/knative/ingress:                   program := knative.dev/eventing/cmd/broker/ingress
bin/knative/eventing-webhook:          program := knative.dev/eventing/cmd/webhook
bin/knative/serving-webhook:           program := knative.dev/serving/cmd/webhook

$(KNATIVE): test/knative/go.mod
	@echo 'compiling $(program) (the first of them takes about two minutes on two cores)…'
	go -C test/knative build -buildvcs=false -ldflags='-s -w' -o $(CURDIR)/$@ $(program)

# The Helms, which install the chart in a test.
HELM := bin/helm bin/helm3

bin/helm:  program := helm.sh/helm/v4/cmd/helm
bin/helm3: program := helm.sh/helm/v3/cmd/helm

$(HELM): test/chart/go.mod
	@echo 'compiling $(program)…'
	go -C test/chart build -buildvcs=false -ldflags='-s -w' -o $(CURDIR)/$@ $(program)

# What operators see certloop with. promtool judges rules, so it needs none of the ways to discover what to scrape.
MONITORING := bin/kube-state-metrics bin/promtool

bin/kube-state-metrics: program := k8s.io/kube-state-metrics/v2
bin/promtool:           program := -tags=remove_all_sd github.com/prometheus/prometheus/cmd/promtool

$(MONITORING): test/monitoring/go.mod
	@echo 'compiling $(program) (the first of them takes about two minutes on two cores)…'
	go -C test/monitoring build -buildvcs=false -ldflags='-s -w' -o $(CURDIR)/$@ $(program)

.PHONY: peers
peers: ## build the CAs that nobody of this project wrote
	@tools/prerequisites
	@for peer in $(PEERS); do $(MAKE) -C "$$peer"; done

.PHONY: clean
clean: ## remove what was built
	rm -rf bin
	@for peer in $(PEERS); do $(MAKE) -C "$$peer" clean; done

##— try ————————————————————————————————————————————————————————————————————————————————

.PHONY: unit
unit: ## run the tests that need nothing but Go
	CERTLOOP_REQUIRE=none go test $$(go list ./... | grep -v '/test/')
	go -C test/kubeapi test ./internal/...

.PHONY: test
test: build bin/kubeapi $(HELM) $(KNATIVE) $(MONITORING) peers $(if $(shell command -v kubectl),,bin/kubectl) ## run every test, after building or installing what it needs
	go -C test/kubeapi test ./internal/...
	go -C tools/images test ./...
	CERTLOOP_REQUIRE=all go -C test/chart test -count=1 -timeout=20m .
	CERTLOOP_REQUIRE=all go test -count=1 -timeout=30m $(ARGS) ./...

.PHONY: chaos
chaos: bin/kubeapi peers ## kill, freeze and repeat everything, for about an hour: CHAOS="-seed=…" repeats a run
	CERTLOOP_REQUIRE=all go test -count=1 -timeout=4h -v $(ARGS) ./test/chaos -kills=500 -each=20 -storm=100 -down=3m $(CHAOS)

.PHONY: knative
knative: build bin/kubeapi $(HELM) $(KNATIVE) ## try the chart and deploy/knative on Knative's own programs, as `make test` does but with 1,000 certificates under fire
	CERTLOOP_REQUIRE=all go test -count=1 -v -timeout=40m $(ARGS) ./test/knativetest -storm=1000

.PHONY: fuzz
fuzz: ## run the fuzz targets of pkg/cmp for FUZZTIME each, the others for OTHERTIME
	@OTHERTIME=$(OTHERTIME) tools/fuzz $(FUZZTIME)

.PHONY: bench
bench: build bin/kubeapi ## measure: cost of an enrolment, time to a Secret, memory, sizes, scale
	go test -run='^$$' -bench=. -benchmem -timeout=2h $(ARGS) ./pkg/... ./test/bench/...
	@ls -l bin | awk 'NR > 1 { printf "%-16s %7.1f MB\n", $$NF, $$5 / 1e6 }'

.PHONY: lint
lint: ## run the linters of .golangci.yml
	$(TOOL) golangci-lint run ./...
	cd test/kubeapi && $(TOOL) golangci-lint run ./...
	cd test/chart && $(TOOL) golangci-lint run ./...
	cd tools/images && $(TOOL) golangci-lint run ./...

.PHONY: generate
generate: ## write deep copies, CRDs, JSON Schemas and what documents repeat, from pkg/model
	$(TOOL) controller-gen object crd paths=./pkg/model output:crd:dir=deploy/knative/crds
	go test ./pkg/model -run=Document -count=1 -update

# What `make generate` and `make chart` write, or write into.
GENERATED := charts deploy docs pkg/model/schemas test/chart/testdata '**/zz_generated*.go'

.PHONY: verify
verify: generate chart ## check that modules are tidy, Go is formatted and what is generated is committed
	@untidy=; for module in $(MODULES); do go -C "$$module" mod tidy -diff || untidy+=" $$module"; done; \
		if [ -n "$$untidy" ]; then echo "go mod tidy would change:$$untidy"; exit 1; fi
	@unformatted=$$(git ls-files --cached --others --exclude-standard '*.go' | xargs gofmt -l); \
		if [ -n "$$unformatted" ]; then echo "not formatted by gofmt:"; echo "$$unformatted"; exit 1; fi
	@git diff --exit-code -- $(GENERATED)
	@unknown=$$(git ls-files --others --exclude-standard -- $(GENERATED)); \
		if [ -n "$$unknown" ]; then echo "generated, and not committed:"; echo "$$unknown"; exit 1; fi
