//! Report pages as a pipeline writes them: words and histogram in, 4 KiB out. Never reads one.

use tidegate_client::abi::{
    PAGE_BYTES, REPORT_ABI_VERSION, REPORT_HISTOGRAM_AT, REPORT_HISTOGRAM_WORDS, REPORT_MAGIC, REPORT_WORDS,
};

const FIRST_WORD_AT: usize = 16;

/// A report page of these words and this histogram.
pub fn render(words: &[u64; REPORT_WORDS], histogram: &[u64; REPORT_HISTOGRAM_WORDS]) -> Vec<u8> {
    let mut page = vec![0; PAGE_BYTES];
    page[..8].copy_from_slice(&REPORT_MAGIC.to_ne_bytes());
    page[8..12].copy_from_slice(&REPORT_ABI_VERSION.to_ne_bytes());
    page[12..16].copy_from_slice(&u32::try_from(REPORT_WORDS).unwrap_or(u32::MAX).to_ne_bytes());
    for (index, word) in (0..).zip(words).chain((REPORT_HISTOGRAM_AT..).zip(histogram)) {
        let at = FIRST_WORD_AT + 8 * index;
        page[at..at + 8].copy_from_slice(&word.to_ne_bytes());
    }
    page
}
