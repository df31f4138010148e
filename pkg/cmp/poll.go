package cmp

import tag "golang.org/x/crypto/cryptobyte/asn1"

const sectionPoll = "RFC 9810 §5.3.22"

// PollReq is the body of pollReq: the certReqIds asked about (RFC 9810 §5.3.22).
type PollReq []int64

func (PollReq) fits(t BodyType) bool { return t == TypePollReq }

func (b PollReq) append(w *writer) {
	m := w.open(tag.SEQUENCE)
	for _, id := range b {
		e := w.open(tag.SEQUENCE)
		w.integer(id)
		w.close(e)
	}
	w.close(m)
}

func (p *parser) pollReq() Body {
	list := p.sequenceAt(sectionPoll, "pollReq")
	b := PollReq{}
	for list.more() {
		q := list.sequence("pollReq")
		b = append(b, q.integer("pollReq.certReqId"))
		q.end("pollReq")
		list.check(len(b) <= MaxEntries, "pollReq")
	}
	return b
}

// PollRep is the body of pollRep (RFC 9810 §5.3.22).
type PollRep []PollRepEntry

// PollRepEntry says when to ask again for one certReqId.
type PollRepEntry struct {
	CertReqID  int64
	CheckAfter int64 // in seconds
	Reason     []string
}

func (PollRep) fits(t BodyType) bool { return t == TypePollRep }

func (b PollRep) append(w *writer) {
	m := w.open(tag.SEQUENCE)
	for i := range b {
		e := w.open(tag.SEQUENCE)
		w.integer(b[i].CertReqID)
		w.integer(b[i].CheckAfter)
		if b[i].Reason != nil {
			w.utf8Strings(b[i].Reason)
		}
		w.close(e)
	}
	w.close(m)
}

func (p *parser) pollRep() Body {
	list := p.sequenceAt(sectionPoll, "pollRep")
	b := PollRep{}
	for list.more() {
		q := list.sequence("pollRep")
		e := PollRepEntry{CertReqID: q.integer("pollRep.certReqId"), CheckAfter: q.integer("pollRep.checkAfter")}
		if q.more() {
			e.Reason = q.utf8Strings("pollRep.reason")
		}
		q.end("pollRep")
		b = append(b, e)
		list.check(len(b) <= MaxEntries, "pollRep")
	}
	return b
}
