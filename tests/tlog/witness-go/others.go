package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"sync"

	f_note "github.com/transparency-dev/formats/note"
	"github.com/transparency-dev/witness/witness"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/mod/sumdb/note"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// memory is all that transparency-dev/witness needs to keep.
type memory struct {
	mutex  sync.Mutex
	latest map[string][]byte
}

func (m *memory) Init(context.Context) error { return nil }

func (m *memory) Latest(_ context.Context, origin string) ([]byte, error) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	return m.latest[origin], nil
}

func (m *memory) Update(_ context.Context, origin string, change func([]byte) ([]byte, error)) error {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	next, err := change(m.latest[origin])
	if err == nil {
		m.latest[origin] = bytes.Clone(next)
	}
	return err
}

func runWitness(address, logKey string) error {
	const name = "transparency.example"
	skey, vkey, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		return err
	}
	signer, err := f_note.NewSignerForCosignatureV1(skey)
	if err != nil {
		return err
	}
	logVerifier, err := note.NewVerifier(logKey)
	if err != nil {
		return err
	}
	w, err := witness.New(context.Background(), witness.Opts{
		Persistence: &memory{latest: map[string][]byte{}},
		Signers:     []note.Signer{signer},
		VerifierForLog: func(_ context.Context, origin string) (note.Verifier, bool, error) {
			return logVerifier, origin == logVerifier.Name(), nil
		},
	})
	if err != nil {
		return err
	}
	key, err := f_note.VKeyToCosignatureV1(vkey)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /add-checkpoint", witness.NewHTTPHandler(w).AddCheckpoint)
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	fmt.Println(key)
	return http.Serve(listener, mux)
}

func runAgent(socket string) error {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	keyring := agent.NewKeyring()
	if err := keyring.Add(agent.AddedKey{PrivateKey: &private}); err != nil {
		return err
	}
	signers, err := keyring.Signers()
	if err != nil {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	fmt.Println(ssh.FingerprintSHA256(signers[0].PublicKey()))
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() { _ = agent.ServeAgent(keyring, connection) }()
	}
}

// makeDatabase does what `witnessctl add-log` and `add-key` do: that program needs a module that is not served everywhere.
func makeDatabase(file, logKey string) error {
	logVerifier, err := note.NewVerifier(logKey)
	if err != nil {
		return err
	}
	db, err := sqlite.OpenConn(file)
	if err != nil {
		return err
	}
	defer db.Close()
	err = sqlitex.ExecScript(db, `
		CREATE TABLE log (origin TEXT PRIMARY KEY, tree_size INTEGER NOT NULL, tree_hash TEXT NOT NULL);
		CREATE TABLE key (origin TEXT NOT NULL, key TEXT NOT NULL, FOREIGN KEY(origin) REFERENCES log(origin));`)
	if err != nil {
		return err
	}
	const empty = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
	arguments := func(values ...any) *sqlitex.ExecOptions { return &sqlitex.ExecOptions{Args: values} }
	err = sqlitex.Execute(db, "INSERT INTO log VALUES (?, 0, ?)", arguments(logVerifier.Name(), empty))
	if err != nil {
		return err
	}
	return sqlitex.Execute(db, "INSERT INTO key VALUES (?, ?)", arguments(logVerifier.Name(), logKey))
}
