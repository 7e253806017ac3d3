//! Durations, sizes and times as people write them: `10m`, `1h30m`, `64 MiB`, `2h` ago.

use proxy_core::Timestamp;
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Reads `250ms`, `15s`, `10m`, `1h30m`, `2d`, `13 months`, `7 years`. A month is 31 days and a year 366: nothing is kept
/// shorter than it says. A number alone is refused: its unit would be a guess.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let (number, after) = split_digits(rest)?;
        let after = after.trim_start();
        let unit_length = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_length);
        let part = match unit {
            "ms" => Duration::from_millis(number),
            "s" => Duration::from_secs(number),
            "m" | "min" => Duration::from_secs(number.checked_mul(60)?),
            "h" => Duration::from_secs(number.checked_mul(3_600)?),
            "d" | "day" | "days" => Duration::from_secs(number.checked_mul(86_400)?),
            "month" | "months" => Duration::from_secs(number.checked_mul(31 * 86_400)?),
            "year" | "years" => Duration::from_secs(number.checked_mul(366 * 86_400)?),
            _ => return None,
        };
        total = total.checked_add(part)?;
        rest = after.trim_start();
    }
    Some(total)
}

/// Writes a duration as [`parse_duration`] reads it.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis == 0 {
        return "0s".to_owned();
    }
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")];
    let (mut rest, mut out) = (millis, String::new());
    for (size, unit) in units {
        if rest >= size {
            out.push_str(&format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    out
}

/// Reads `4096`, `64 KiB`, `1GiB`, `10 MB`.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split_digits(text.trim())?;
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// Writes a size as [`parse_size`] reads it, in the largest unit that loses nothing.
#[must_use]
pub fn show_size(bytes: u64) -> String {
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes >= 1 << shift && bytes.is_multiple_of(1 << shift) {
            return format!("{} {unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

fn split_digits(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    Some((number.parse().ok()?, rest))
}

/// Reads a point in time: RFC 3339 (`2026-11-24T10:00:00Z`), a date (`2026-11-24`, midnight UTC), or a
/// duration before `now` (`2h`).
#[must_use]
pub fn parse_time(text: &str, now: Timestamp) -> Option<Timestamp> {
    let text = text.trim();
    if let Some(ago) = parse_duration(text) {
        return Some(Timestamp(now.0.saturating_sub(i64::try_from(ago.as_micros()).ok()?)));
    }
    let full = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    let at = OffsetDateTime::parse(&full, &Rfc3339).ok()?;
    i64::try_from(at.unix_timestamp_nanos() / 1_000).ok().map(Timestamp)
}

/// Writes a point in time as RFC 3339 in UTC, with microseconds.
#[must_use]
pub fn show_time(at: Timestamp) -> String {
    let format = time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(at.0) * 1_000)
        .ok()
        .and_then(|at| at.format(&format).ok())
        .unwrap_or_else(|| format!("{} µs", at.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit_and_round_trip() {
        assert_eq!(parse_duration("10m"), Some(Duration::from_secs(600)));
        assert_eq!(parse_duration("1h30m"), Some(Duration::from_secs(5_400)));
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        for bad in ["", "10", "m", "10 fortnights", "-5s", "1h-", "99999999999999999999s", "18446744073709551615h"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
        for good in ["1d2h3m4s5ms", "15s", "0s"] {
            assert_eq!(parse_duration(good).map(show_duration).as_deref(), Some(good));
        }
    }

    #[test]
    fn sizes_in_both_families_of_units() {
        assert_eq!(parse_size("64 MiB"), Some(64 << 20));
        assert_eq!(parse_size("1GiB"), Some(1 << 30));
        assert_eq!(parse_size("10 MB"), Some(10_000_000));
        assert_eq!(parse_size("4096"), Some(4096));
        for bad in ["", "MiB", "1 mib", "1 m", "-1", "18446744073709551615 KiB"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
        assert_eq!(show_size(64 << 20), "64 MiB");
        assert_eq!(show_size(1_000_000), "1000000");
    }

    #[test]
    fn times_absolute_and_relative() {
        let now = Timestamp::from_seconds(1_000_000);
        assert_eq!(parse_time("2h", now), Some(Timestamp::from_seconds(1_000_000 - 7_200)));
        assert_eq!(parse_time("1970-01-02", now), Some(Timestamp::from_seconds(86_400)));
        assert_eq!(parse_time("1970-01-01T01:00:00+01:00", now), Some(Timestamp(0)));
        assert_eq!(parse_time("yesterday", now), None);
        assert_eq!(show_time(Timestamp(1)), "1970-01-01T00:00:00.000001Z");
    }
}
