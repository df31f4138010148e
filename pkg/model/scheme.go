package model

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// AddToScheme registers the custom resources.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion, &CMPIssuer{}, &CMPIssuerList{}, &CMPClusterIssuer{}, &CMPClusterIssuerList{}, &CMPCertificate{}, &CMPCertificateList{})
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}
