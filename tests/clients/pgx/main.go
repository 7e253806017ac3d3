// pgx: Go's driver. Binary format, statement cache, batches (pipelined), COPY, protocol-level access through pgconn.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

const (
	name  = "Ada Lovelace"
	email = "ada.lovelace@example.com"
	card  = "4111111111111111"
	tenMB = 10_000_000
)

var (
	direct     = os.Getenv("DIRECT") == "1"
	passed     int
	failed     int
	maskedMail = regexp.MustCompile(`^a\*+@e\*+\.com$`)
	maskedCard = regexp.MustCompile(`^\D+1111$`)
)

type body func(ctx context.Context, c *pgx.Conn) error

func config() *pgx.ConnConfig {
	cfg, err := pgx.ParseConfig(fmt.Sprintf("host=%s port=%s user=%s dbname=%s sslmode=verify-full sslrootcert=%s",
		os.Getenv("SP_HOST"), os.Getenv("SP_PORT"), os.Getenv("SP_USER"), os.Getenv("SP_DB"), os.Getenv("SP_SSLROOTCERT")))
	if err != nil {
		panic(err)
	}
	cfg.Password = os.Getenv("SP_PASSWORD")
	cfg.ConnectTimeout = 20 * time.Second
	return cfg
}

func behaviour(title string, run body) {
	if len(os.Args) > 1 && !slices.Contains(os.Args[1:], title) {
		return
	}
	ctx, stop := context.WithTimeout(context.Background(), 2*time.Minute)
	defer stop()
	err := func() error {
		c, err := pgx.ConnectConfig(ctx, config())
		if err != nil {
			return err
		}
		defer c.Close(ctx)
		return run(ctx, c)
	}()
	if err != nil {
		failed++
		text := strings.ReplaceAll(err.Error(), "\n", " | ")
		fmt.Printf("FAIL %s: %.600s\n", title, text)
		return
	}
	passed++
	fmt.Println("ok", title)
}

func policy(title string, run body) {
	if !direct {
		behaviour(title, run)
	}
}

func same(got, expected any) error {
	if !reflect.DeepEqual(got, expected) {
		return fmt.Errorf("got %.200v, expected %.200v", got, expected)
	}
	return nil
}

func state(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

func fails(err error, code string) error {
	if err == nil {
		return fmt.Errorf("no error, expected %s", code)
	}
	if state(err) != code {
		return fmt.Errorf("expected %s: %w", code, err)
	}
	return nil
}

func masked(mail, number string) error {
	if !maskedMail.MatchString(mail) || !maskedCard.MatchString(number) {
		return fmt.Errorf("not masked: %q, %q", mail, number)
	}
	return nil
}

func hidden(text string) error {
	if strings.Contains(text, email) || strings.Contains(text, card) {
		return errors.New("a clear value is in the result")
	}
	return nil
}

func exec(ctx context.Context, c *pgx.Conn, statements ...string) error {
	for _, statement := range statements {
		if _, err := c.Exec(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

func number(ctx context.Context, c *pgx.Conn, sql string, expected int64, parameters ...any) error {
	var got int64
	if err := c.QueryRow(ctx, sql, parameters...).Scan(&got); err != nil {
		return err
	}
	return same(got, expected)
}

func pair(ctx context.Context, c *pgx.Conn, sql string, parameters ...any) error {
	var mail, digits string
	if err := c.QueryRow(ctx, sql, parameters...).Scan(&mail, &digits); err != nil {
		return err
	}
	return masked(mail, digits)
}

func main() {
	plain()
	transactions()
	policies()
	streams()
	logins()
	fmt.Printf("%d passed, %d failed, 0 skipped\n", passed, failed)
	if failed > 0 {
		os.Exit(1)
	}
}

func plain() {
	behaviour("connect_tls", func(ctx context.Context, c *pgx.Conn) error {
		if _, ok := c.PgConn().Conn().(*tls.Conn); !ok {
			return errors.New("not inside TLS")
		}
		return number(ctx, c, "SELECT 1", 1)
	})
	behaviour("simple_query", func(ctx context.Context, c *pgx.Conn) error {
		rows, err := c.Query(ctx, "SELECT id FROM products ORDER BY id LIMIT 3", pgx.QueryExecModeSimpleProtocol)
		if err != nil {
			return err
		}
		ids, err := pgx.CollectRows(rows, pgx.RowTo[int])
		return errors.Join(err, same(ids, []int{1, 2, 3}))
	})
	behaviour("parameters", func(ctx context.Context, c *pgx.Conn) error {
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe,
			pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
			var got string
			err := c.QueryRow(ctx, "SELECT name FROM customers WHERE id = $1 AND country = $2", mode, 1, "GB").Scan(&got)
			if err := errors.Join(err, same(got, name)); err != nil {
				return fmt.Errorf("%v: %w", mode, err)
			}
		}
		return nil
	})
	behaviour("prepared_reexecution", func(ctx context.Context, c *pgx.Conn) error {
		if _, err := c.Prepare(ctx, "pick", "SELECT id FROM products WHERE id = $1"); err != nil {
			return err
		}
		for _, n := range []int64{1, 2, 3, 2} {
			if err := number(ctx, c, "pick", n, n); err != nil {
				return err
			}
		}
		return c.Deallocate(ctx, "pick")
	})
	behaviour("types_round_trip", types)
	behaviour("nulls", func(ctx context.Context, c *pgx.Conn) error {
		var a *int
		var b *string
		var d string
		err := c.QueryRow(ctx, "SELECT $1::int, NULL::text, ''", nil).Scan(&a, &b, &d)
		return errors.Join(err, same(a == nil && b == nil && d == "", true))
	})
	behaviour("multiple_results", func(ctx context.Context, c *pgx.Conn) error {
		results, err := c.PgConn().Exec(ctx, "SELECT 1; SELECT 'two', 2; SELECT 3").ReadAll()
		if err != nil {
			return err
		}
		return errors.Join(same(len(results), 3), same(string(results[1].Rows[0][0]), "two"))
	})
	behaviour("long_value", func(ctx context.Context, c *pgx.Conn) error {
		value := strings.Repeat("y", tenMB)
		var got string
		var length int
		err := c.QueryRow(ctx, "SELECT $1::text, length($1)", value).Scan(&got, &length)
		return errors.Join(err, same(length, tenMB), same(got == value, true))
	})
}

func types(ctx context.Context, c *pgx.Conn) error {
	allBytes := make([]byte, 256)
	for n := range allBytes {
		allBytes[n] = byte(n)
	}
	coefficient, _ := new(big.Int).SetString("12345678901234567890123456789", 10)
	values := []struct {
		kind  string
		value any
	}{
		{"int2", int16(32767)}, {"int4", int32(-2147483648)}, {"int8", int64(9223372036854775807)},
		{"float8", 1.5e300}, {"float4", float32(0.5)}, {"text", "grüße, 🦀 \\ back"}, {"bytea", allBytes}, {"bool", true},
		{"numeric", pgtype.Numeric{Int: coefficient, Exp: -9, Valid: true}},
		{"date", time.Date(2024, 2, 29, 0, 0, 0, 0, time.UTC)},
		{"timestamp", time.Date(1999, 12, 31, 23, 59, 59, 999999000, time.UTC)},
		{"uuid", [16]byte{0x0f, 0x8f, 0xad, 0x5b, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}},
	}
	for _, each := range values {
		got := reflect.New(reflect.TypeOf(each.value))
		if err := c.QueryRow(ctx, "SELECT $1::"+each.kind, each.value).Scan(got.Interface()); err != nil {
			return fmt.Errorf("%s: %w", each.kind, err)
		}
		if err := same(got.Elem().Interface(), each.value); err != nil {
			return fmt.Errorf("%s: %w", each.kind, err)
		}
	}
	var list []int32
	var document map[string]any
	err := c.QueryRow(ctx, "SELECT $1::int4[], $2::jsonb", []int32{1, 2, 3}, json.RawMessage(`{"a": "b"}`)).Scan(&list, &document)
	return errors.Join(err, same(list, []int32{1, 2, 3}), same(document, map[string]any{"a": "b"}))
}

func transactions() {
	behaviour("transaction_commit", func(ctx context.Context, c *pgx.Conn) error {
		err := exec(ctx, c, "CREATE TEMP TABLE t (n int)")
		return errors.Join(err, pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "INSERT INTO t VALUES ($1)", 1)
			return err
		}), number(ctx, c, "SELECT count(*) FROM t", 1))
	})
	behaviour("transaction_rollback", func(ctx context.Context, c *pgx.Conn) error {
		return errors.Join(exec(ctx, c, "CREATE TEMP TABLE t (n int)", "BEGIN", "INSERT INTO t VALUES (1)", "ROLLBACK"),
			number(ctx, c, "SELECT count(*) FROM t", 0))
	})
	behaviour("savepoint", func(ctx context.Context, c *pgx.Conn) error {
		if err := exec(ctx, c, "CREATE TEMP TABLE t (n int)"); err != nil {
			return err
		}
		return errors.Join(pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
			inner := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
				_, err := tx.Exec(ctx, "SELECT 1/0")
				return err
			})
			if err := fails(inner, "22012"); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, "INSERT INTO t VALUES (2)")
			return err
		}), number(ctx, c, "SELECT n FROM t", 2))
	})
	behaviour("error_keeps_session", func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, "SELECT 1 / $1::int", 0)
		return errors.Join(fails(err, "22012"), number(ctx, c, "SELECT 2", 2))
	})
	behaviour("error_fields", func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, "INSERT INTO products (sku, name, price) VALUES ('SKU-00001', 'x', 1)")
		var pg *pgconn.PgError
		if !errors.As(err, &pg) {
			return errors.New("no error")
		}
		return errors.Join(same(pg.ConstraintName, "products_sku_key"), same(pg.TableName, "products"))
	})
}

func policies() {
	policy("denied_outside_transaction", func(ctx context.Context, c *pgx.Conn) error {
		_, one := c.Exec(ctx, "SELECT * FROM secrets", pgx.QueryExecModeSimpleProtocol)
		_, two := c.Exec(ctx, "SELECT * FROM secrets WHERE id = $1", 1)
		_, three := c.Prepare(ctx, "p", "SELECT value FROM secrets")
		_, four := c.Exec(ctx, "SELECT * FROM secrets WHERE id = $1", pgx.QueryExecModeExec, 1)
		return errors.Join(fails(one, "42501"), fails(two, "42501"), fails(three, "42501"), fails(four, "42501"),
			number(ctx, c, "SELECT 3", 3))
	})
	policy("denied_inside_transaction", func(ctx context.Context, c *pgx.Conn) error {
		if err := exec(ctx, c, "CREATE TEMP TABLE t (n int)"); err != nil {
			return err
		}
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
			if err := exec(ctx, c, "BEGIN", "INSERT INTO t VALUES (1)"); err != nil {
				return err
			}
			_, refused := c.Exec(ctx, "SELECT * FROM secrets WHERE id = $1", mode, 1)
			status := c.PgConn().TxStatus()
			_, after := c.Exec(ctx, "SELECT 1", mode)
			if err := errors.Join(fails(refused, "42501"), same(status, byte('E')), fails(after, "25P02"), exec(ctx, c, "ROLLBACK"),
				number(ctx, c, "SELECT count(*) FROM t", 0)); err != nil {
				return err
			}
		}
		return nil
	})
	policy("denied_in_pipeline", func(ctx context.Context, c *pgx.Conn) error {
		// Not prepared first: Parse, Bind, Describe, Execute of each, and one Sync.
		cfg := config()
		cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
		c, err := pgx.ConnectConfig(ctx, cfg)
		if err != nil {
			return err
		}
		defer c.Close(ctx)
		batch := &pgx.Batch{}
		batch.Queue("SELECT 1")
		batch.Queue("DELETE FROM order_lines")
		batch.Queue("SELECT 3")
		results := c.SendBatch(ctx, batch)
		_, one := results.Exec()
		_, two := results.Exec()
		_, three := results.Exec()
		results.Close()
		if one != nil {
			return fmt.Errorf("what came before: %w", one)
		}
		if three == nil {
			return errors.New("what followed in the batch ran")
		}
		// Two batches in flight, each with a Sync of its own: the second one works.
		pipe := c.PgConn().StartPipeline(ctx)
		pipe.SendQueryParams("SELECT * FROM secrets", nil, nil, nil, nil)
		pipe.SendPipelineSync()
		pipe.SendQueryParams("SELECT 'fine'", nil, nil, nil, nil)
		pipe.SendPipelineSync()
		err = pipe.Flush()
		_, refused := pipe.GetResults()
		if refused == nil {
			return errors.New("not denied in the pipeline")
		}
		_, err1 := pipe.GetResults() // the first Sync
		second, err2 := pipe.GetResults()
		if err := errors.Join(fails(two, "42501"), err, fails(refused, "42501"), err1, err2); err != nil {
			return err
		}
		reader, ok := second.(*pgconn.ResultReader)
		if !ok {
			return fmt.Errorf("the second batch answered %T", second)
		}
		read := reader.Read()
		if err := errors.Join(read.Err, same(string(read.Rows[0][0]), "fine")); err != nil {
			return err
		}
		return errors.Join(pipe.Close(), number(ctx, c, "SELECT 5", 5))
	})
	policy("masked_text", func(ctx context.Context, c *pgx.Conn) error {
		return errors.Join(
			pair(ctx, c, "SELECT email, card_number FROM customers WHERE id = $1", pgx.QueryExecModeSimpleProtocol, 1),
			pair(ctx, c, "SELECT email AS name, card_number AS id FROM customers x WHERE x.id = 1", pgx.QueryResultFormats{pgx.TextFormatCode}))
	})
	policy("masked_binary", func(ctx context.Context, c *pgx.Conn) error {
		results := c.PgConn().ExecParams(ctx, "SELECT email, card_number, id FROM customers WHERE id = 1", nil, nil, nil, []int16{1}).Read()
		if results.Err != nil {
			return results.Err
		}
		row := results.Rows[0]
		return errors.Join(masked(string(row[0]), string(row[1])), same(bytes.Equal(row[2], []byte{0, 0, 0, 1}), true))
	})
	policy("masked_prepared", func(ctx context.Context, c *pgx.Conn) error {
		// The statement cache: Parse and Describe once, then Bind and Execute alone.
		for range 3 {
			if err := pair(ctx, c, "SELECT email, card_number FROM customers WHERE id = $1", 1); err != nil {
				return err
			}
		}
		// Execute without any Describe at all: the gateway must ask by itself.
		if _, err := c.PgConn().Prepare(ctx, "bare", "SELECT email, card_number FROM customers WHERE id = 1", nil); err != nil {
			return err
		}
		for _, format := range []int16{0, 1} {
			results := c.PgConn().ExecPrepared(ctx, "bare", nil, nil, []int16{format}).Read()
			if results.Err != nil {
				return results.Err
			}
			if err := masked(string(results.Rows[0][0]), string(results.Rows[0][1])); err != nil {
				return err
			}
		}
		return nil
	})
	policy("masked_cursor", func(ctx context.Context, c *pgx.Conn) error {
		return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "DECLARE x CURSOR FOR SELECT email, card_number FROM customers ORDER BY id"); err != nil {
				return err
			}
			return pair(ctx, tx.Conn(), "FETCH 1 FROM x")
		})
	})
	policy("masked_returning", func(ctx context.Context, c *pgx.Conn) error {
		return pair(ctx, c, "UPDATE customers SET balance = balance WHERE id = $1 RETURNING email, card_number", 1)
	})
	policy("masked_copy_out", func(ctx context.Context, c *pgx.Conn) error {
		var out bytes.Buffer
		_, err := c.PgConn().CopyTo(ctx, &out, "COPY customers (email, card_number) TO STDOUT")
		return errors.Join(err, hidden(out.String()), same(strings.Contains(out.String(), "***@e***.com"), true))
	})
	policy("masked_expression", func(ctx context.Context, c *pgx.Conn) error {
		for _, expression := range []string{"lower(email)", "email || ''", "row_to_json(customers)::text", "array_to_string(array[email], '')"} {
			var got string
			err := c.QueryRow(ctx, "SELECT "+expression+" FROM customers WHERE id = 1").Scan(&got)
			if err == nil {
				err = hidden(got)
			} else if state(err) == "42501" {
				err = nil
			}
			if err != nil {
				return fmt.Errorf("%s: %w", expression, err)
			}
		}
		return nil
	})
}

func streams() {
	behaviour("large_result", func(ctx context.Context, c *pgx.Conn) error {
		rows, err := c.Query(ctx, "SELECT n, repeat('x', 50) FROM generate_series(1, 200000) n")
		if err != nil {
			return err
		}
		var n, total int64
		var text string
		count, err := pgx.ForEachRow(rows, []any{&n, &text}, func() error { total += n; return nil })
		return errors.Join(err, same(count.RowsAffected(), int64(200000)), same(total, int64(20000100000)))
	})
	behaviour("copy_in_out", func(ctx context.Context, c *pgx.Conn) error {
		if err := exec(ctx, c, "CREATE TEMP TABLE t (n int, s text)"); err != nil {
			return err
		}
		count, err := c.CopyFrom(ctx, pgx.Identifier{"t"}, []string{"n", "s"}, pgx.CopyFromSlice(10000, func(n int) ([]any, error) {
			return []any{n, fmt.Sprint("line ", n)}, nil
		}))
		var out bytes.Buffer
		_, err2 := c.PgConn().CopyTo(ctx, &out, "COPY t TO STDOUT")
		return errors.Join(err, err2, same(count, int64(10000)), same(strings.Count(out.String(), "\n"), 10000))
	})
	behaviour("listen_notify", func(ctx context.Context, c *pgx.Conn) error {
		if err := exec(ctx, c, "LISTEN news"); err != nil {
			return err
		}
		speaker, err := pgx.ConnectConfig(ctx, config())
		if err != nil {
			return err
		}
		defer speaker.Close(ctx)
		if err := exec(ctx, speaker, "NOTIFY news, 'hello'"); err != nil {
			return err
		}
		wait, stop := context.WithTimeout(ctx, 10*time.Second)
		defer stop()
		heard, err := c.WaitForNotification(wait)
		if err != nil {
			return err
		}
		return same(heard.Payload, "hello")
	})
	behaviour("cancel", func(ctx context.Context, c *pgx.Conn) error {
		done := make(chan error)
		go func() {
			time.Sleep(500 * time.Millisecond)
			done <- c.PgConn().CancelRequest(ctx)
		}()
		_, err := c.Exec(ctx, "SELECT pg_sleep(30)")
		return errors.Join(<-done, fails(err, "57014"), number(ctx, c, "SELECT 1", 1))
	})
	behaviour("pipeline", func(ctx context.Context, c *pgx.Conn) error {
		batch := &pgx.Batch{}
		for n := range 500 {
			batch.Queue("SELECT $1::int", n)
		}
		results := c.SendBatch(ctx, batch)
		for n := range 500 {
			var got int
			if err := results.QueryRow().Scan(&got); err != nil || got != n {
				return errors.Join(err, same(got, n))
			}
		}
		return results.Close()
	})
}

func logins() {
	behaviour("wrong_token", func(ctx context.Context, _ *pgx.Conn) error {
		cfg := config()
		cfg.Password = "wrong"
		_, err := pgx.ConnectConfig(ctx, cfg)
		if got := state(err); got != "28P01" && got != "28000" {
			return fmt.Errorf("SQLSTATE %q: %v", got, err)
		}
		return nil
	})
	policy("plain_refused", func(ctx context.Context, _ *pgx.Conn) error {
		cfg := config()
		cfg.TLSConfig = nil
		cfg.Fallbacks = nil
		_, err := pgx.ConnectConfig(ctx, cfg)
		if err == nil {
			return errors.New("a plain connection was accepted")
		}
		return same(strings.Contains(err.Error(), "TLS") || strings.Contains(err.Error(), "SSL"), true)
	})
	policy("direct_tls", func(ctx context.Context, _ *pgx.Conn) error {
		// PostgreSQL 17's way: TLS at once, with the protocol's name in ALPN.
		pem, err := os.ReadFile(os.Getenv("SP_SSLROOTCERT"))
		if err != nil {
			return err
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(pem)
		c, err := tls.Dial("tcp", os.Getenv("SP_HOST")+":"+os.Getenv("SP_PORT"),
			&tls.Config{RootCAs: roots, ServerName: os.Getenv("SP_HOST"), NextProtos: []string{"postgresql"}, MinVersion: tls.VersionTLS13})
		if err != nil {
			return err
		}
		defer c.Close()
		return same(c.ConnectionState().NegotiatedProtocol, "postgresql")
	})
}
