//! Log-linear histograms: buckets of the kernel side in, quantiles out.
//!
//! A power of two is cut into 2^`sub_bits` equal buckets. A quantile is interpolated inside its bucket, so the error is
//! at most half a bucket: 6 % with 2 bits, 1.6 % with 4. Means are never taken from buckets: exact sums travel beside.

/// Bounds `[low, high)` of bucket `index`.
pub fn bounds(index: usize, sub_bits: u32) -> (u64, u64) {
    let subs = 1_usize << sub_bits;
    if index < subs {
        return (index as u64, index as u64 + 1);
    }
    let octave = u32::try_from(index / subs - 1).unwrap_or(u32::MAX);
    let width = 1_u64.checked_shl(octave).unwrap_or(u64::MAX);
    let low = ((subs + index % subs) as u64).saturating_mul(width);
    (low, low.saturating_add(width))
}

/// Bucket of `value`, the inverse of [`bounds`]; the last of `buckets` takes everything above.
pub fn bucket(value: u64, sub_bits: u32, buckets: usize) -> usize {
    let subs = 1_u64 << sub_bits;
    if value < subs {
        return usize::try_from(value).unwrap_or(0).min(buckets - 1);
    }
    let top = value.ilog2();
    let octave = (top - sub_bits) as usize;
    let sub = usize::try_from((value >> (top - sub_bits)) - subs).unwrap_or(0);
    (((octave + 1) << sub_bits) + sub).min(buckets - 1)
}

/// The value below which the share `q` of the counts lies, `None` when nothing was counted.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a position inside a bucket needs no more than 52 bits"
)]
pub fn quantile(counts: &[u64], sub_bits: u32, q: f64) -> Option<u64> {
    let total: u64 = counts.iter().fold(0, |sum, c| sum.saturating_add(*c));
    if total == 0 {
        return None;
    }
    let rank = q.clamp(0.0, 1.0) * total as f64;
    let mut below = 0.0;
    let last = counts.iter().rposition(|c| *c > 0)?;
    for (index, count) in counts.iter().enumerate().filter(|(_, c)| **c > 0) {
        let count = *count as f64;
        if below + count >= rank || index == last {
            let (low, high) = bounds(index, sub_bits);
            let share = ((rank - below) / count).clamp(0.0, 1.0);
            return Some((low as f64 + share * (high - low) as f64) as u64);
        }
        below += count;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_value_lies_in_its_own_bucket(value in 0_u64..1 << 41, sub_bits in 1_u32..6) {
            let (low, high) = bounds(bucket(value, sub_bits, 10_000), sub_bits);
            prop_assert!(low <= value && value < high, "{value} not in {low}..{high}");
        }

        #[test]
        fn a_quantile_is_within_half_a_bucket_of_a_lone_value(value in 16_u64..1 << 40) {
            let mut counts = vec![0; 700];
            counts[bucket(value, 4, 700)] = 10;
            let q = quantile(&counts, 4, 0.5).unwrap();
            prop_assert!(q.abs_diff(value) * 32 <= value + 64, "{q} for {value}");
        }
    }

    #[test]
    fn a_quantile_of_nothing_is_unknown_not_zero() {
        assert_eq!(quantile(&[0; 8], 2, 0.5), None);
    }
}
