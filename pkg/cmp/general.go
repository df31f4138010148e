package cmp

const sectionGeneral = "RFC 9810 §5.3.19"

// GenMsg is the body of genm and genp (RFC 9810 §5.3.19, §5.3.20).
type GenMsg []InfoTypeAndValue

func (GenMsg) fits(t BodyType) bool { return t == TypeGenM || t == TypeGenP }

func (b GenMsg) append(w *writer) { w.infos(b) }
