package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"time"

	"filippo.io/torchwood"
	"github.com/transparency-dev/formats/log"
	f_note "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	origin = "example.com/go-log"
	leaves = 300
	// Both histories are the same up to here.
	partsAt = 100
)

// goLog is a log whose trees, proofs and signatures are golang.org/x/mod's.
type goLog struct {
	signer note.Signer
	vkey   string
	hashes []tlog.Hash
}

func newLog(history byte) *goLog {
	skey, vkey, err := note.GenerateKey(bytes.NewReader(bytes.Repeat([]byte{7}, 64)), origin)
	must(err)
	signer, err := note.NewSigner(skey)
	must(err)
	l := &goLog{signer: signer, vkey: vkey}
	for at := int64(0); at < leaves; at++ {
		leaf := fmt.Appendf(nil, "entry %d", at)
		if at >= partsAt {
			leaf = append(leaf, history)
		}
		hashes, err := tlog.StoredHashes(at, leaf, l)
		must(err)
		l.hashes = append(l.hashes, hashes...)
	}
	return l
}

func must(err error) {
	if err != nil {
		fail(err)
	}
}

// ReadHashes makes it a tlog.HashReader.
func (l *goLog) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var found []tlog.Hash
	for _, index := range indexes {
		found = append(found, l.hashes[index])
	}
	return found, nil
}

func (l *goLog) text(size int64) string {
	if size == 0 {
		// The hash of nothing, which tlog.TreeHash does not give.
		return origin + "\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"
	}
	root, err := tlog.TreeHash(size, l)
	must(err)
	return torchwood.Checkpoint{Origin: origin, Tree: tlog.Tree{N: size, Hash: root}}.String()
}

func (l *goLog) checkpoint(size int64) []byte {
	return sign(l.text(size), l.signer)
}

func sign(text string, signers ...note.Signer) []byte {
	signed, err := note.Sign(&note.Note{Text: text}, signers...)
	must(err)
	return signed
}

func (l *goLog) proof(old, size int64) [][]byte {
	if old == 0 || old == size {
		return nil
	}
	hashes, err := tlog.ProveTree(size, old, l)
	must(err)
	var proof [][]byte
	for _, hash := range hashes {
		proof = append(proof, hash[:])
	}
	return proof
}

// openCosigned verifies a checkpoint that its log has signed and that a witness has cosigned just now.
func openCosigned(cosigned []byte, logKey, witnessKey string) (*log.Checkpoint, error) {
	logVerifier, err := note.NewVerifier(logKey)
	if err != nil {
		return nil, err
	}
	witness, err := f_note.NewVerifierForCosignatureV1(witnessKey)
	if err != nil {
		return nil, err
	}
	checkpoint, _, opened, err := log.ParseCheckpoint(cosigned, logVerifier.Name(), logVerifier, witness)
	if err != nil {
		return nil, err
	}
	var times []time.Time
	for _, signature := range opened.Sigs {
		if signature.Hash == witness.KeyHash() && signature.Name == witness.Name() {
			seconds, err := torchwood.CosignatureTimestamp(signature)
			if err != nil {
				return nil, err
			}
			times = append(times, time.Unix(seconds, 0))
		}
	}
	if len(times) != 1 {
		return nil, fmt.Errorf("%d cosignatures, not one", len(times))
	}
	if age := time.Since(times[0]).Abs(); age > time.Minute {
		return nil, fmt.Errorf("it was cosigned at %s", times[0])
	}
	return checkpoint, nil
}

func base64Of(hashes [][]byte) (lines string) {
	for _, hash := range hashes {
		lines += base64.StdEncoding.EncodeToString(hash) + "\n"
	}
	return lines
}
