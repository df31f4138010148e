// Package e2e holds the end-to-end tests: what certloop promises, tried on real
// parts. See package rig for what they need.
//
//	the demonstration              TestDevOnce
//	the Secret                     TestSecretHoldsWhatWasConfigured, TestConfigurationChanges
//	a CA nobody here wrote         TestOpenSSLCA, TestRenewalBeforeExpiry, TestWaitingOpenSSL
//	four ways, one result          TestFourWaysOneResult, TestSameEventTenTimes, TestFunctionsAsProcesses
//	repair                         TestRepairWithoutTheCA, TestRepairLeavesForeignParts
//	kill -9, SIGTERM, replicas     TestKillNineDuringEnrolments, TestDrainDuringEnrolments, TestTwoReplicas
//	the CA, NATS, the API server   TestCADownForTwoMinutes, TestRestartDuringOutage,
//	go away                        TestLosingNATSLosesNothing, TestAPIServerRestart
//	the CA makes us wait           TestWaitingBlocksNobody, TestWaitingOutlivesTheProcess
//	bad input                      TestRefusedEvents, TestMissingIssuer, TestMissingSecret, TestUnusableSecret,
//	                               TestUndecodableAnswer, TestConfigOwnedByAnother
//	no key outside Secrets         TestNoPrivateKeyOutsideSecrets
package e2e

import (
	"flag"
	"os"
	"runtime"
	"strconv"
	"testing"

	"github.com/certloop/certloop/test/kubetest"
)

// together is how many tests run at once, unless -parallel says otherwise. They wait
// for clocks far more than they compute.
const together = 12

func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f != nil && f.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		_ = f.Value.Set(strconv.Itoa(together))
	}
	os.Exit(kubetest.Main(m))
}
