//! Texts that kube-apiserver reads with Go's standard library: durations.

use std::time::Duration;

/// Reads what Go's `time.ParseDuration` reads: `3s`, `1m30s`, `.5s`, `0`. None for anything else,
/// and for what is negative or longer than Go can count (292 years).
pub(super) fn duration(text: &str) -> Option<Duration> {
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    if unsigned == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = unsigned;
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = after.strip_prefix('.').map_or(("", after), digits);
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let end = after
            .find(|c: char| c == '.' || c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        nanos = nanos.checked_add(nanoseconds(whole, fraction, unit)?)?;
        rest = after;
    }
    let longest = u128::from(i64::MAX.unsigned_abs());
    let nanos = (!unsigned.is_empty() && nanos <= longest).then_some(nanos)?;
    u64::try_from(nanos).ok().map(Duration::from_nanos)
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(
        text.find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len()),
    )
}

fn nanoseconds(whole: &str, fraction: &str, unit: &str) -> Option<u128> {
    let unit: u128 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    let whole: u128 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    // An hour has fewer than 10^18 ns, so that digits beyond the eighteenth count for nothing.
    let fraction = &fraction[..fraction.len().min(18)];
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let fraction: u128 = if fraction.is_empty() {
        0
    } else {
        fraction.parse().ok()?
    };
    whole
        .checked_mul(unit)?
        .checked_add(fraction * unit / scale)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_as_go_reads_them() {
        for (text, nanos) in [
            ("0", 0),
            ("0s", 0),
            ("3s", 3_000_000_000),
            ("+5ms", 5_000_000),
            ("1m30s", 90_000_000_000),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("1µs2ns", 1_002),
            ("0.0000000001s", 0),
            ("9223372036854775807ns", 9_223_372_036_854_775_807),
        ] {
            assert_eq!(duration(text), Some(Duration::from_nanos(nanos)), "{text}");
        }
        for text in [
            "",
            "3",
            "3 s",
            "s",
            ".s",
            "3S",
            "-3s",
            "+",
            "1d",
            "3sec",
            "9223372036854775808ns",
            "∞",
        ] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_them_panic(text in any::<String>(), more in "[0-9.hmsnµu+-]{0,40}") {
            let _ = (duration(&text), duration(&more));
        }

        #[test]
        fn whole_milliseconds_survive(millis in 0u64..100_000_000) {
            prop_assert_eq!(duration(&format!("{millis}ms")), Some(Duration::from_millis(millis)));
        }
    }
}
