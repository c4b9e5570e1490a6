//! Pipelines that lie: an honest report page in, what a broken or hostile pipeline would show instead out.
//!
//! Every lie here is one that a page on a real host can tell, by a bug, a restart or on purpose.

use tidegate_client::abi::{REPORT_HISTOGRAM_WORDS, REPORT_WORDS, ReportWord};

use crate::source::sim::page;
use crate::source::sim::random::Random;

/// How a pipeline lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Its counters fall now and then, as after a restart.
    Fall,
    /// Its counters start just below their end and wrap.
    Wrap,
    /// It claims more events than any host can take.
    Absurd,
    /// It claims a queue far above its capacity.
    Queue,
    /// Its page is cut short, or cannot be read.
    Cut,
    /// Its page is noise.
    Noise,
}

impl Lie {
    /// Every lie.
    pub const ALL: [Self; 6] = [Self::Fall, Self::Wrap, Self::Absurd, Self::Queue, Self::Cut, Self::Noise];

    /// What it shows: a page, or the errno of reading it. Now and then only: most of what a liar says is true.
    pub fn tell(
        self,
        mut words: [u64; REPORT_WORDS],
        histogram: [u64; REPORT_HISTOGRAM_WORDS],
        random: &mut Random,
    ) -> Result<Vec<u8>, u16> {
        let now = random.unit() < 0.2;
        let events = ReportWord::EventsIn as usize;
        match self {
            Self::Fall if now => words[events] /= 2,
            Self::Wrap => {
                for word in &mut words[..=ReportWord::FlushErrors as usize] {
                    *word = word.wrapping_sub(2_000);
                }
            }
            Self::Absurd if now => words[events] = random.bits(),
            Self::Queue if now => words[ReportWord::QueueBytes as usize] = random.bits(),
            Self::Cut if now => {
                let mut page = page::render(&words, &histogram);
                page.truncate(usize::try_from(random.bits() % 4_096).unwrap_or(0));
                return if random.unit() < 0.5 { Ok(page) } else { Err(5) };
            }
            Self::Noise if now => return Ok((0..512).flat_map(|_| random.bits().to_ne_bytes()).collect()),
            _ => {}
        }
        Ok(page::render(&words, &histogram))
    }
}
