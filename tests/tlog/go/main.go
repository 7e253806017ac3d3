// Verifies a published log with golang.org/x/mod/sumdb/{note,tlog}: the signature of its checkpoint, every entry of it
// through hash tiles, and that it extends an earlier checkpoint. It knows nothing of Sallyport's own code.
//
//	verify DIR KEY [EARLIER-CHECKPOINT]
package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("usage: verify DIR KEY [EARLIER]")
	}
	verifier, err := note.NewVerifier(args[1])
	if err != nil {
		return err
	}
	tree, err := checkpoint(filepath.Join(args[0], "checkpoint"), verifier)
	if err != nil {
		return err
	}
	// TileHashReader checks each tile against the tree before it is used.
	hashes := tlog.TileHashReader(tree, folder(args[0]))
	var indexes []int64
	count := int64(0)
	for count < tree.N {
		entries, err := bundle(args[0], count/256, tree.N)
		if err != nil {
			return err
		}
		indexes = indexes[:0]
		for i := range entries {
			indexes = append(indexes, tlog.StoredHashIndex(0, count+int64(i)))
		}
		known, err := hashes.ReadHashes(indexes)
		if err != nil {
			return err
		}
		for i, entry := range entries {
			if tlog.RecordHash(entry) != known[i] {
				return fmt.Errorf("entry %d is not the one that the tree has", count+int64(i))
			}
		}
		// One proof of each bundle, made and checked by this library.
		last := count + int64(len(entries)) - 1
		proof, err := tlog.ProveRecord(tree.N, last, hashes)
		if err != nil {
			return err
		}
		if err := tlog.CheckRecord(proof, tree.N, tree.Hash, last, tlog.RecordHash(entries[len(entries)-1])); err != nil {
			return fmt.Errorf("entry %d: %w", last, err)
		}
		count += int64(len(entries))
	}
	if len(args) > 2 {
		earlier, err := checkpoint(args[2], verifier)
		if err != nil {
			return err
		}
		proof, err := tlog.ProveTree(tree.N, earlier.N, hashes)
		if err != nil {
			return err
		}
		if err := tlog.CheckTree(proof, tree.N, tree.Hash, earlier.N, earlier.Hash); err != nil {
			return err
		}
	}
	fmt.Printf("%d entries\n", tree.N)
	return nil
}

// checkpoint reads a signed checkpoint. (tlog.ParseTree wants the Go checksum database's own first line.)
func checkpoint(path string, verifier note.Verifier) (tlog.Tree, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return tlog.Tree{}, err
	}
	opened, err := note.Open(data, note.VerifierList(verifier))
	if err != nil {
		return tlog.Tree{}, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[0] != verifier.Name() {
		return tlog.Tree{}, fmt.Errorf("%s is not this log's checkpoint", path)
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return tlog.Tree{}, err
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		return tlog.Tree{}, fmt.Errorf("%s has no root", path)
	}
	return tlog.Tree{N: size, Hash: tlog.Hash(root)}, nil
}

// bundle reads the entries of one file, at most as many as the tree has.
func bundle(dir string, index, size int64) ([][]byte, error) {
	width := min(256, size-index*256)
	path := tlog.Tile{H: 8, L: 0, N: index, W: int(width)}.Path()
	data, err := os.ReadFile(filepath.Join(dir, strings.Replace(path, "tile/8/0/", "tile/entries/", 1)))
	if err != nil {
		return nil, err
	}
	var entries [][]byte
	for int64(len(entries)) < width {
		if len(data) < 2 || len(data) < 2+int(binary.BigEndian.Uint16(data)) {
			return nil, fmt.Errorf("%s is cut off", path)
		}
		length := int(binary.BigEndian.Uint16(data))
		entries = append(entries, bytes.Clone(data[2:2+length]))
		data = data[2+length:]
	}
	return entries, nil
}

// folder reads tiles from files. The library's paths have the height of tiles in them; the published ones are of height 8.
type folder string

func (folder) Height() int { return 8 }

func (dir folder) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range tiles {
		path := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
		data, err := os.ReadFile(filepath.Join(string(dir), path))
		if err != nil {
			return nil, err
		}
		all = append(all, data)
	}
	return all, nil
}

func (folder) SaveTiles([]tlog.Tile, [][]byte) {}
