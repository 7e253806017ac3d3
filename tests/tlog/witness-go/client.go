package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"

	f_note "github.com/transparency-dev/formats/note"
	witness_http "github.com/transparency-dev/witness/client/http"
	"github.com/transparency-dev/witness/witness"
	"golang.org/x/mod/sumdb/note"
)

// checkWitness asks a witness that has cosigned nothing of the log yet, with the client of transparency-dev/witness.
func checkWitness(ctx context.Context, address, witnessKey, keyFile string) error {
	where, err := url.Parse(address)
	if err != nil {
		return err
	}
	client := witness_http.NewWitness(where, http.DefaultClient)
	log, fork := newLog('a'), newLog('b')
	cosigned := func(l *goLog, old, size int64) error {
		return askFor(ctx, client, witnessKey, l, old, size)
	}
	refused := func(l *goLog, old, size int64, known uint64, expected error) error {
		_, told, err := client.Update(ctx, uint64(old), l.checkpoint(size), l.proof(old, size))
		if !errors.Is(err, expected) || told != known {
			return fmt.Errorf("it says %v and %d", err, told)
		}
		return nil
	}
	check("the empty tree is cosigned", cosigned(log, 0, 0))
	check("the first tree is cosigned", cosigned(log, 0, 7))
	check("a later tree is cosigned", cosigned(log, 7, 64))
	check("and one that is no power of two", cosigned(log, 64, 150))
	check("the same tree is cosigned again", cosigned(log, 150, 150))
	check("what starts elsewhere is told where to start", refused(log, 64, 200, 150, witness.ErrCheckpointStale))
	check("what shrinks is told as well", refused(log, 100, 120, 150, witness.ErrCheckpointStale))
	check("another history of that size is refused", refused(fork, 150, 150, 150, witness.ErrCheckpointStale))
	check("another history that goes on is refused", refused(fork, 150, 200, 0, witness.ErrInvalidProof))
	check("what was refused has left nothing behind", cosigned(log, 150, 151))
	check("every status of the specification", statuses(address, log))
	check("of two that race one wins", race(ctx, client, witnessKey, log, fork))
	check("the key's file is one that others read", sameKey(witnessKey, keyFile))
	return nil
}

func askFor(ctx context.Context, client witness_http.Witness, witnessKey string, l *goLog, old, size int64) error {
	checkpoint := l.checkpoint(size)
	lines, _, err := client.Update(ctx, uint64(old), checkpoint, l.proof(old, size))
	if err != nil {
		return err
	}
	opened, err := openCosigned(append(checkpoint, lines...), l.vkey, witnessKey)
	if err != nil {
		return err
	}
	if opened.Size != uint64(size) {
		return fmt.Errorf("%d entries were cosigned, not %d", opened.Size, size)
	}
	return nil
}

// statuses asks by hand what no client would.
func statuses(address string, l *goLog) error {
	skey, _, err := note.GenerateKey(rand.Reader, origin)
	must(err)
	stranger, err := note.NewSigner(skey)
	must(err)
	other := strings.Replace(l.text(160), origin, "example.com/elsewhere", 1)
	request := func(old, proof string, checkpoint []byte) string {
		return "old " + old + "\n" + proof + "\n" + string(checkpoint)
	}
	proof := base64Of(l.proof(151, 160))
	for _, one := range []struct {
		what, body string
		status     int
		answer     string
	}{
		{"not a request", "hello\n", 400, ""},
		{"no checkpoint", "old 151\n\nhello\n", 400, ""},
		{"a size with a zero before it", request("0151", proof, l.checkpoint(160)), 400, ""},
		{"64 lines of proof", request("151", strings.Repeat(base64Of([][]byte{make([]byte, 32)}), 64), l.checkpoint(160)), 400, ""},
		{"an old size that is larger", request("161", "", l.checkpoint(160)), 400, ""},
		{"signed by another", request("151", proof, sign(l.text(160), stranger)), 403, ""},
		{"signed by another as well", request("1", proof, sign(l.text(160), stranger, l.signer)), 409, "151\n"},
		{"an unknown log", request("0", "", sign(other, stranger)), 404, ""},
		{"a proof of nothing", request("151", "", l.checkpoint(160)), 422, ""},
		{"a proof of something else", request("151", base64Of(l.proof(150, 160)), l.checkpoint(160)), 422, ""},
		{"a conflict", request("0", "", l.checkpoint(160)), 409, "151\n"},
	} {
		answer, err := http.Post(address+"/add-checkpoint", "", strings.NewReader(one.body))
		if err != nil {
			return err
		}
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil {
			return err
		}
		if answer.StatusCode != one.status || one.answer != "" && string(body) != one.answer {
			return fmt.Errorf("%s: status %d, %q", one.what, answer.StatusCode, body)
		}
		if kind := answer.Header.Get("Content-Type"); (kind == "text/x.tlog.size") != (one.status == 409) {
			return fmt.Errorf("%s: status %d has the content type %s", one.what, answer.StatusCode, kind)
		}
	}
	return nil
}

// race sends two histories at once, many times over, from the size 151 on: all that is cosigned is of one.
func race(ctx context.Context, client witness_http.Witness, witnessKey string, l, fork *goLog) error {
	var group sync.WaitGroup
	var mutex sync.Mutex
	won, lost := 0, 0
	for at := range 20 {
		for _, one := range []*goLog{l, fork} {
			group.Go(func() {
				err := askFor(ctx, client, witnessKey, one, 151, int64(200+at))
				mutex.Lock()
				defer mutex.Unlock()
				switch {
				case err == nil && one == l:
					won++
				case err == nil:
					won += 1000
				default:
					lost++
				}
			})
		}
	}
	group.Wait()
	if won != 1 || lost != 39 {
		return fmt.Errorf("%d won, %d lost", won, lost)
	}
	return nil
}

// sameKey signs with the witness's own key file, in another implementation.
func sameKey(witnessKey, keyFile string) error {
	secret, err := os.ReadFile(keyFile)
	if err != nil {
		return err
	}
	signer, err := f_note.NewSignerForCosignatureV1(strings.TrimSuffix(string(secret), "\n"))
	if err != nil {
		return err
	}
	l := newLog('a')
	_, err = openCosigned(sign(l.text(9), l.signer, signer), l.vkey, witnessKey)
	return err
}
