//! Buckets of the log-linear histograms; `agent::aggregate::histogram` holds the inverse.

/// Bucket of `value`: a power of two is cut into 2^`sub_bits` equal parts; the last of `buckets` takes what is above.
#[inline(always)]
pub fn bucket(value: u64, sub_bits: u32, buckets: usize) -> usize {
    let subs = 1_u64 << sub_bits;
    if value < subs {
        return value as usize;
    }
    let top = log2(value);
    let shift = (top - sub_bits) & 63;
    let index = ((u64::from(shift) + 1) << sub_bits) + ((value >> shift) - subs);
    if index as usize >= buckets { buckets - 1 } else { index as usize }
}

/// Position of the highest bit, by halving: the target has no instruction for it.
#[inline(always)]
fn log2(mut value: u64) -> u32 {
    let mut top = 0;
    if value >> 32 != 0 {
        value >>= 32;
        top += 32;
    }
    if value >> 16 != 0 {
        value >>= 16;
        top += 16;
    }
    if value >> 8 != 0 {
        value >>= 8;
        top += 8;
    }
    if value >> 4 != 0 {
        value >>= 4;
        top += 4;
    }
    if value >> 2 != 0 {
        value >>= 2;
        top += 2;
    }
    top + ((value >> 1) & 1) as u32
}
