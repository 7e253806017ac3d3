// The other side of `sallyport witness`, and of the gateway's client, from implementations that others wrote:
// golang.org/x/mod/sumdb (trees, proofs, notes), transparency-dev/witness (a client and a witness), transparency-dev/formats
// (cosignatures), and what filippo.io/torchwood's litewitness needs to run. Each check is a line: `ok NAME` or
// `FAIL NAME: why`.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
)

const usage = `usage: witness-check COMMAND
  log-key                        the key of the log of the checks
  client URL WITNESS-KEY KEYFILE checks a running witness, which knows that log
  verify LOG-KEY WITNESS-KEY     checks the cosigned checkpoint on standard input; prints its size
  witness ADDRESS LOG-KEY        runs a witness of that log; prints its key
  agent SOCKET                   runs an SSH agent with a new key; prints its fingerprint
  database FILE LOG-KEY          makes litewitness's database, with that log`

func main() {
	arguments := os.Args[1:]
	if len(arguments) == 0 {
		fail(fmt.Errorf("%s", usage))
	}
	command, rest := arguments[0], arguments[1:]
	var err error
	switch {
	case command == "log-key" && len(rest) == 0:
		fmt.Println(newLog(0).vkey)
	case command == "client" && len(rest) == 3:
		err = checkWitness(context.Background(), rest[0], rest[1], rest[2])
	case command == "verify" && len(rest) == 2:
		err = verify(os.Stdin, rest[0], rest[1])
	case command == "witness" && len(rest) == 2:
		err = runWitness(rest[0], rest[1])
	case command == "agent" && len(rest) == 1:
		err = runAgent(rest[0])
	case command == "database" && len(rest) == 2:
		err = makeDatabase(rest[0], rest[1])
	default:
		err = fmt.Errorf("%s", usage)
	}
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// check prints how one went, and whether it went well.
func check(name string, err error) bool {
	if err != nil {
		fmt.Printf("FAIL %s: %s\n", name, strings.ReplaceAll(err.Error(), "\n", " "))
		return false
	}
	fmt.Printf("ok %s\n", name)
	return true
}

// verify reads a cosigned checkpoint, as the gateway publishes it.
func verify(from io.Reader, logKey, witnessKey string) error {
	cosigned, err := io.ReadAll(from)
	if err != nil {
		return err
	}
	checkpoint, err := openCosigned(cosigned, logKey, witnessKey)
	if err != nil {
		return err
	}
	fmt.Println(checkpoint.Size)
	return nil
}
