package cmp

// section is where the RFCs define what is being read. It is a number because it
// changes with every structure, and a [SyntaxError] wants its name only once.
type section uint8

const (
	inMessage section = iota
	inHeader
	inAlgorithm
	inName
	inBody
	inCertReq
	inTemplate
	inPOPO
	inControls
	inCertRep
	inStatus
	inCertConf
	inPoll
	inRevReq
	inRevRep
	inGeneral
	inCACerts
	inRootUpdate
	inCertReqTemplate
	inCRLs
	inError
	inPBM
	inPBMAC1
	inPSS
)

var sections = [...]string{
	inMessage:         sectionMessage,
	inHeader:          sectionHeader,
	inAlgorithm:       sectionAlgorithm,
	inName:            sectionName,
	inBody:            sectionBody,
	inCertReq:         sectionCertReq,
	inTemplate:        sectionTemplate,
	inPOPO:            sectionPOPO,
	inControls:        sectionControls,
	inCertRep:         sectionCertRep,
	inStatus:          sectionStatus,
	inCertConf:        sectionCertConf,
	inPoll:            sectionPoll,
	inRevReq:          sectionRevReq,
	inRevRep:          sectionRevRep,
	inGeneral:         sectionGeneral,
	inCACerts:         sectionCACerts,
	inRootUpdate:      sectionRootUpdate,
	inCertReqTemplate: sectionCertReqTempl,
	inCRLs:            sectionCRLs,
	inError:           sectionError,
	inPBM:             sectionPBM,
	inPBMAC1:          sectionPBMAC1,
	inPSS:             "RFC 4055 §3.1",
}

func (s section) String() string { return sections[s] }
