package cmp

import (
	"fmt"
	"time"

	tag "golang.org/x/crypto/cryptobyte/asn1"
)

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
	list := p.enterAt(inPoll, "pollReq")
	b := PollReq{}
	for p.more() {
		entry := p.enter(tag.SEQUENCE, "pollReq")
		b = append(b, p.integer("pollReq.certReqId"))
		p.leave(entry, "pollReq")
		p.check(len(b) <= MaxEntries, "pollReq")
	}
	p.leave(list, "pollReq")
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
	list := p.enterAt(inPoll, "pollRep")
	b := PollRep{}
	for p.more() {
		entry := p.enter(tag.SEQUENCE, "pollRep")
		e := PollRepEntry{CertReqID: p.integer("pollRep.certReqId"), CheckAfter: p.integer("pollRep.checkAfter")}
		if p.more() {
			e.Reason = p.utf8Strings("pollRep.reason")
		}
		p.leave(entry, "pollRep")
		b = append(b, e)
		p.check(len(b) <= MaxEntries, "pollRep")
	}
	p.leave(list, "pollRep")
	return b
}

// startPolling asks for the answer from now on with pollReq, at once the first time (RFC 9810 §5.3.22).
func (t *Transaction) startPolling(id int64) error {
	if t.state.Polling {
		return &ReplyError{Field: "status", Section: sectionPoll, Detail: "waiting, while already polling", Failure: FailBadRequest}
	}
	if t.overdue() {
		return ErrDeadline
	}
	t.state.Polling, t.state.PollID, t.state.Polls = true, id, 0
	t.state.DelayedNonce = t.state.LastNonce
	t.state.CheckAt = t.cfg.Now().UTC()
	return nil
}

func (t *Transaction) handlePollRep(body PollRep) error {
	switch {
	case !t.state.Polling:
		return &ReplyError{Field: "body", Section: sectionPoll, Detail: "pollRep, but there was no pollReq", Failure: FailBadRequest}
	case len(body) != 1:
		return &ReplyError{Field: "pollRep", Section: sectionPoll, Detail: fmt.Sprintf("%d entries", len(body)), Failure: FailBadDataFormat}
	case body[0].CertReqID != t.state.PollID:
		return &ReplyError{Field: "pollRep.certReqId", Section: sectionPoll, Detail: "not the one asked about", Failure: FailBadRequest}
	case body[0].CheckAfter < 0:
		return &ReplyError{Field: "pollRep.checkAfter", Section: sectionPoll, Detail: "negative", Failure: FailBadDataFormat}
	}
	return t.schedule(body[0].CheckAfter)
}

// schedule sets the time of the next poll within our own bounds; the last poll
// is exactly at the deadline.
func (t *Transaction) schedule(checkAfter int64) error {
	now := t.cfg.Now().UTC()
	deadline := t.state.Deadline
	t.state.Polls++
	if t.state.Polls > t.cfg.MaxPolls || t.overdue() {
		return ErrDeadline
	}
	limit := max(t.cfg.MaxCheckAfter, MinCheckAfter)
	wait := limit
	if checkAfter < int64(limit/time.Second) {
		wait = max(time.Duration(checkAfter)*time.Second, MinCheckAfter)
	}
	t.state.CheckAt = now.Add(wait)
	if !deadline.IsZero() && t.state.CheckAt.After(deadline) {
		t.state.CheckAt = deadline
	}
	return nil
}
