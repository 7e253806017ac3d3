// JDBC: the PostgreSQL driver (pgjdbc). It prepares on the server and switches to binary after five executions.

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.math.BigDecimal;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.util.Arrays;
import java.util.List;
import java.util.Objects;
import java.util.Properties;
import java.util.UUID;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.util.PSQLException;

public final class Suite {
    static final boolean DIRECT = "1".equals(System.getenv("DIRECT"));
    static final String NAME = "Ada Lovelace";
    static final String EMAIL = "ada.lovelace@example.com";
    static final String CARD = "4111111111111111";
    static final int TEN_MB = 10_000_000;
    static int passed, failed;
    static List<String> only;

    interface Body { void run(Connection c) throws Exception; }

    static Connection connect(String... more) throws SQLException {
        Properties properties = new Properties();
        properties.setProperty("user", System.getenv("SP_USER"));
        properties.setProperty("password", System.getenv("SP_PASSWORD"));
        properties.setProperty("sslmode", "verify-full");
        properties.setProperty("sslrootcert", System.getenv("SP_SSLROOTCERT"));
        properties.setProperty("loginTimeout", "20");
        for (int at = 0; at + 1 < more.length; at += 2) properties.setProperty(more[at], more[at + 1]);
        return DriverManager.getConnection(
            "jdbc:postgresql://" + System.getenv("SP_HOST") + ":" + System.getenv("SP_PORT") + "/" + System.getenv("SP_DB"), properties);
    }

    static void behaviour(String name, Body body, String... options) {
        if (!only.isEmpty() && !only.contains(name)) return;
        try (Connection c = connect(options)) {
            body.run(c);
            passed++;
            System.out.println("ok " + name);
        } catch (Exception | AssertionError error) {
            failed++;
            String message = (error.getClass().getSimpleName() + ": " + error.getMessage()).replace("\n", " | ");
            System.out.println("FAIL " + name + ": " + message.substring(0, Math.min(600, message.length())));
        }
    }

    static void policy(String name, Body body, String... options) {
        if (!DIRECT) behaviour(name, body, options);
    }

    static void same(Object got, Object expected) {
        if (!Objects.equals(got, expected)) throw new AssertionError("got " + shorten(got) + ", expected " + shorten(expected));
    }

    static String shorten(Object value) {
        String text = String.valueOf(value);
        return text.length() > 200 ? text.substring(0, 200) + "…" : text;
    }

    static void fails(String state, Body body, Connection c) throws Exception {
        try {
            body.run(c);
        } catch (SQLException error) {
            if (!state.equals(error.getSQLState())) throw new AssertionError("SQLSTATE " + error.getSQLState() + ": " + error.getMessage());
            return;
        }
        throw new AssertionError("no error, expected " + state);
    }

    static void run(Connection c, String sql) throws SQLException {
        try (Statement s = c.createStatement()) { s.execute(sql); }
    }

    static String one(Connection c, String sql, Object... parameters) throws SQLException {
        try (PreparedStatement s = c.prepareStatement(sql)) {
            for (int at = 0; at < parameters.length; at++) s.setObject(at + 1, parameters[at]);
            try (ResultSet r = s.executeQuery()) { return r.next() ? r.getString(1) : null; }
        }
    }

    static void masked(ResultSet r) throws SQLException {
        String email = r.getString(1), card = r.getString(2);
        if (email == null || !email.matches("a\\*+@e\\*+\\.com")) throw new AssertionError("e-mail is " + email);
        if (card == null || !card.matches("\\D+1111")) throw new AssertionError("card number is " + card);
    }

    static void hidden(String text) {
        if (text.contains(EMAIL) || text.contains(CARD)) throw new AssertionError("a clear value is in the result");
    }

    static String all(Connection c, String sql) throws SQLException {
        StringBuilder text = new StringBuilder();
        try (Statement s = c.createStatement(); ResultSet r = s.executeQuery(sql)) {
            while (r.next()) for (int at = 1; at <= r.getMetaData().getColumnCount(); at++) text.append(r.getString(at)).append('|');
        }
        return text.toString();
    }

    public static void main(String[] arguments) {
        only = Arrays.asList(arguments);
        plain();
        transactions();
        policies();
        streams();
        logins();
        System.out.println(passed + " passed, " + failed + " failed, 0 skipped");
        System.exit(failed > 0 ? 1 : 0);
    }

    static void plain() {
        behaviour("connect_tls", c -> {
            same(one(c, "SELECT 1"), "1");
            same(c.getMetaData().getDatabaseProductName(), "PostgreSQL");
        });
        behaviour("simple_query", c -> {
            try (Statement s = c.createStatement(); ResultSet r = s.executeQuery("SELECT id FROM products ORDER BY id LIMIT 3")) {
                for (int n = 1; n <= 3; n++) { r.next(); same(r.getInt(1), n); }
            }
        }, "preferQueryMode", "simple");
        behaviour("parameters", c -> same(one(c, "SELECT name FROM customers WHERE id = ? AND country = ?", 1, "GB"), NAME));
        behaviour("prepared_reexecution", c -> {
            try (PreparedStatement s = c.prepareStatement("SELECT id, price FROM products WHERE id = ?")) {
                for (int n = 1; n <= 20; n++) {
                    s.setInt(1, n);
                    try (ResultSet r = s.executeQuery()) { r.next(); same(r.getInt(1), n); }
                }
            }
        });
        behaviour("types_round_trip", Suite::types);
        behaviour("nulls", c -> {
            try (PreparedStatement s = c.prepareStatement("SELECT ?::int, NULL::text, ''")) {
                s.setNull(1, java.sql.Types.INTEGER);
                try (ResultSet r = s.executeQuery()) {
                    r.next();
                    same(r.getObject(1), null);
                    same(r.getObject(2), null);
                    same(r.getString(3), "");
                }
            }
        });
        behaviour("multiple_results", c -> {
            try (Statement s = c.createStatement()) {
                same(s.execute("SELECT 1; SELECT 2, 3; SELECT 4"), true);
                int results = 1;
                while (s.getMoreResults()) results++;
                same(results, 3);
            }
        });
        behaviour("metadata", c -> {
            try (ResultSet r = c.getMetaData().getColumns(null, "public", "customers", "%")) {
                int count = 0;
                while (r.next()) count++;
                same(count, 8);
            }
        });
        behaviour("long_value", c -> {
            String value = "y".repeat(TEN_MB);
            try (PreparedStatement s = c.prepareStatement("SELECT ?::text, length(?)")) {
                s.setString(1, value);
                s.setString(2, value);
                try (ResultSet r = s.executeQuery()) {
                    r.next();
                    same(r.getInt(2), TEN_MB);
                    same(r.getString(1).equals(value), true);
                }
            }
        });
    }

    static void types(Connection c) throws SQLException {
        byte[] bytes = new byte[256];
        for (int n = 0; n < 256; n++) bytes[n] = (byte) n;
        // Twice six times: text first, binary after the driver's threshold.
        try (PreparedStatement s = c.prepareStatement("SELECT ?::int8, ?::float8, ?::numeric, ?::text, ?::bytea, ?::bool, ?::date, "
            + "?::timestamp, ?::timestamptz, ?::uuid, ?::jsonb, ?::int4[]")) {
            for (int round = 0; round < 12; round++) {
                s.setLong(1, Long.MAX_VALUE);
                s.setDouble(2, 1.5e300);
                s.setBigDecimal(3, new BigDecimal("12345678901234567890.123456789"));
                s.setString(4, "grüße, \ud83e\udd80 \\ back");
                s.setBytes(5, bytes);
                s.setBoolean(6, true);
                s.setObject(7, LocalDate.of(2024, 2, 29));
                s.setObject(8, LocalDateTime.of(1999, 12, 31, 23, 59, 59, 999_999_000));
                s.setObject(9, OffsetDateTime.of(2024, 1, 1, 12, 0, 0, 0, ZoneOffset.UTC));
                s.setObject(10, UUID.fromString("0f8fad5b-d9cb-469f-a165-70867728950e"));
                s.setObject(11, "{\"a\": 1}", java.sql.Types.OTHER);
                s.setArray(12, c.createArrayOf("int4", new Object[] {1, 2, 3}));
                try (ResultSet r = s.executeQuery()) {
                    r.next();
                    same(r.getLong(1), Long.MAX_VALUE);
                    same(r.getDouble(2), 1.5e300);
                    same(r.getBigDecimal(3), new BigDecimal("12345678901234567890.123456789"));
                    same(r.getString(4), "grüße, \ud83e\udd80 \\ back");
                    same(Arrays.equals(r.getBytes(5), bytes), true);
                    same(r.getBoolean(6), true);
                    same(r.getObject(7, LocalDate.class), LocalDate.of(2024, 2, 29));
                    same(r.getObject(8, LocalDateTime.class), LocalDateTime.of(1999, 12, 31, 23, 59, 59, 999_999_000));
                    same(r.getObject(9, OffsetDateTime.class).toInstant(), OffsetDateTime.of(2024, 1, 1, 12, 0, 0, 0, ZoneOffset.UTC).toInstant());
                    same(r.getObject(10), UUID.fromString("0f8fad5b-d9cb-469f-a165-70867728950e"));
                    same(r.getString(11), "{\"a\": 1}");
                    same(Arrays.asList((Integer[]) r.getArray(12).getArray()), Arrays.asList(1, 2, 3));
                }
            }
        }
    }

    static void transactions() {
        behaviour("transaction_commit", c -> {
            run(c, "CREATE TEMP TABLE t (n int)");
            c.setAutoCommit(false);
            run(c, "INSERT INTO t VALUES (1)");
            c.commit();
            same(one(c, "SELECT count(*) FROM t"), "1");
        });
        behaviour("transaction_rollback", c -> {
            run(c, "CREATE TEMP TABLE t (n int)");
            c.setAutoCommit(false);
            run(c, "INSERT INTO t VALUES (1)");
            c.rollback();
            same(one(c, "SELECT count(*) FROM t"), "0");
        });
        behaviour("savepoint", c -> {
            run(c, "CREATE TEMP TABLE t (n int)");
            c.setAutoCommit(false);
            var savepoint = c.setSavepoint("a");
            fails("22012", d -> run(d, "SELECT 1/0"), c);
            c.rollback(savepoint);
            run(c, "INSERT INTO t VALUES (2)");
            c.commit();
            same(one(c, "SELECT n FROM t"), "2");
        });
        behaviour("error_keeps_session", c -> {
            fails("22012", d -> one(d, "SELECT 1 / ?", 0), c);
            same(one(c, "SELECT 2"), "2");
        });
        behaviour("error_fields", c -> {
            try {
                run(c, "INSERT INTO products (sku, name, price) VALUES ('SKU-00001', 'x', 1)");
                throw new AssertionError("no error");
            } catch (PSQLException error) {
                same(error.getServerErrorMessage().getConstraint(), "products_sku_key");
                same(error.getServerErrorMessage().getTable(), "products");
            }
        });
    }

    static void policies() {
        policy("denied_outside_transaction", c -> {
            fails("42501", d -> all(d, "SELECT * FROM secrets"), c);
            fails("42501", d -> one(d, "SELECT * FROM secrets WHERE id = ?", 1), c);
            same(one(c, "SELECT 3"), "3");
        });
        policy("denied_inside_transaction", c -> {
            run(c, "CREATE TEMP TABLE t (n int)");
            c.setAutoCommit(false);
            run(c, "INSERT INTO t VALUES (1)");
            fails("42501", d -> one(d, "SELECT * FROM secrets WHERE id = ?", 1), c);
            fails("25P02", d -> one(d, "SELECT 1"), c);
            c.rollback();
            same(one(c, "SELECT count(*) FROM t"), "0");
        });
        policy("denied_in_pipeline", c -> {
            run(c, "CREATE TEMP TABLE t (n int)");
            fails("42501", d -> {
                try (Statement s = d.createStatement()) {
                    s.addBatch("INSERT INTO t VALUES (1)");
                    s.addBatch("DELETE FROM order_lines");
                    s.addBatch("INSERT INTO t VALUES (2)");
                    s.executeBatch();
                }
            }, c);
            same(one(c, "SELECT 3"), "3");
        });
        policy("masked_text", c -> {
            try (Statement s = c.createStatement();
                ResultSet r = s.executeQuery("SELECT email AS name, card_number AS id FROM customers x WHERE x.id = 1")) {
                r.next();
                masked(r);
            }
            hidden(all(c, "SELECT * FROM customers ORDER BY id LIMIT 100"));
        }, "preferQueryMode", "simple");
        policy("masked_prepared", c -> {
            try (PreparedStatement s = c.prepareStatement("SELECT email, card_number FROM customers WHERE id = ?")) {
                for (int n = 0; n < 20; n++) {
                    s.setInt(1, 1);
                    try (ResultSet r = s.executeQuery()) { r.next(); masked(r); }
                }
            }
        });
        policy("masked_binary", c -> {
            try (PreparedStatement s = c.prepareStatement("SELECT email, card_number, id FROM customers WHERE id = ?")) {
                for (int n = 0; n < 3; n++) {
                    s.setInt(1, 1);
                    try (ResultSet r = s.executeQuery()) { r.next(); masked(r); same(r.getInt(3), 1); }
                }
            }
        }, "prepareThreshold", "-1", "binaryTransfer", "true");
        policy("masked_cursor", c -> {
            c.setAutoCommit(false);
            try (PreparedStatement s = c.prepareStatement("SELECT email, card_number FROM customers ORDER BY id")) {
                s.setFetchSize(50);
                try (ResultSet r = s.executeQuery()) {
                    r.next();
                    masked(r);
                    for (int n = 0; n < 500; n++) { r.next(); hidden(r.getString(1) + r.getString(2)); }
                }
            }
        });
        policy("masked_returning", c -> {
            try (PreparedStatement s = c.prepareStatement(
                "UPDATE customers SET balance = balance WHERE id = 1", new String[] {"email", "card_number"})) {
                s.executeUpdate();
                try (ResultSet r = s.getGeneratedKeys()) { r.next(); masked(r); }
            }
        });
        policy("masked_copy_out", c -> {
            ByteArrayOutputStream out = new ByteArrayOutputStream();
            c.unwrap(PGConnection.class).getCopyAPI().copyOut("COPY customers (email, card_number) TO STDOUT", out);
            String text = out.toString(StandardCharsets.UTF_8);
            hidden(text);
            same(text.contains("***@e***.com"), true);
        });
        policy("masked_expression", c -> {
            for (String expression : new String[] {"lower(email)", "email || ''", "row_to_json(customers)"}) {
                try {
                    hidden(all(c, "SELECT " + expression + " FROM customers WHERE id = 1"));
                } catch (SQLException error) {
                    same(error.getSQLState(), "42501");
                }
            }
        });
    }

    static void streams() {
        behaviour("large_result", c -> {
            c.setAutoCommit(false);
            try (Statement s = c.createStatement()) {
                s.setFetchSize(5000);
                long count = 0, total = 0;
                try (ResultSet r = s.executeQuery("SELECT n, repeat('x', 50) FROM generate_series(1, 200000) n")) {
                    while (r.next()) { count++; total += r.getInt(1); }
                }
                same(count, 200_000L);
                same(total, 20_000_100_000L);
            }
        });
        behaviour("copy_in_out", c -> {
            run(c, "CREATE TEMP TABLE t (n int, s text)");
            StringBuilder lines = new StringBuilder();
            for (int n = 0; n < 10_000; n++) lines.append(n).append("\tline ").append(n).append('\n');
            byte[] data = lines.toString().getBytes(StandardCharsets.UTF_8);
            var copy = c.unwrap(PGConnection.class).getCopyAPI();
            same(copy.copyIn("COPY t FROM STDIN", new ByteArrayInputStream(data)), 10_000L);
            ByteArrayOutputStream out = new ByteArrayOutputStream();
            copy.copyOut("COPY t TO STDOUT", out);
            same(Arrays.equals(out.toByteArray(), data), true);
        });
        behaviour("pipeline", c -> {
            run(c, "CREATE TEMP TABLE t (n int, s text)");
            try (PreparedStatement s = c.prepareStatement("INSERT INTO t VALUES (?, ?)")) {
                for (int n = 0; n < 2000; n++) { s.setInt(1, n); s.setString(2, "s" + n); s.addBatch(); }
                same(s.executeBatch().length, 2000);
            }
            same(one(c, "SELECT sum(n) FROM t"), "1999000");
        });
        behaviour("listen_notify", c -> {
            run(c, "LISTEN news");
            try (Connection speaker = connect()) { run(speaker, "NOTIFY news, 'hello'"); }
            PGNotification[] heard = c.unwrap(PGConnection.class).getNotifications(10_000);
            same(heard == null ? 0 : heard.length, 1);
            same(heard[0].getParameter(), "hello");
        });
        behaviour("cancel", c -> {
            try (Statement s = c.createStatement()) {
                Thread canceller = new Thread(() -> {
                    try { Thread.sleep(500); s.cancel(); } catch (Exception ignored) { }
                });
                canceller.start();
                fails("57014", d -> s.execute("SELECT pg_sleep(30)"), c);
                canceller.join();
            }
            same(one(c, "SELECT 1"), "1");
        });
    }

    static void logins() {
        behaviour("wrong_token", c -> {
            try (Connection other = connect("password", "wrong")) {
                throw new AssertionError("logged in with a wrong password");
            } catch (SQLException error) {
                same(error.getSQLState().equals("28P01") || error.getSQLState().equals("28000"), true);
            }
        });
        policy("plain_refused", c -> {
            try (Connection other = connect("sslmode", "disable")) {
                throw new AssertionError("a plain connection was accepted");
            } catch (SQLException error) {
                same(error.getMessage().contains("TLS") || error.getMessage().contains("SSL"), true);
            }
        });
    }
}
