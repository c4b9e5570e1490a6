//! Progress on a terminal: how many are due and acknowledged, the rate and the latencies of the last second. Acknowledged
//! latencies and the time come in, a line on standard error goes out; nothing at all where there is no terminal.

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::iter::Peekable;
use tidegate_client::Nanos;

use super::Plan;
use super::schedule::Walk;

const SECOND: Nanos = Nanos::from_millis(1_000);
/// How often the line changes.
const REDRAW: Nanos = Nanos::from_millis(200);

/// A line that tells how a load goes.
pub(crate) struct Live<'a> {
    shown: Option<Shown<'a>>,
}

struct Shown<'a> {
    bar: ProgressBar,
    begin: Nanos,
    walk: Peekable<Walk<'a>>,
    due: u64,
    micros: Histogram<u64>,
    second_began: Nanos,
    redraw: Nanos,
    last: String,
}

impl<'a> Live<'a> {
    pub(crate) fn new(plan: &'a Plan<'a>) -> Self {
        let end = plan.schedule.end().0 / 1_000_000;
        let bar = ProgressBar::with_draw_target(Some(end), ProgressDrawTarget::stderr());
        if bar.is_hidden() {
            return Self { shown: None };
        }
        if let Ok(style) = ProgressStyle::with_template("{bar:24} {percent:>3} %  {msg}") {
            bar.set_style(style);
        }
        // The library refuses only figures beyond five.
        let Ok(micros) = Histogram::new(3) else { return Self { shown: None } };
        let walk = plan.schedule.walk().peekable();
        let (begin, last) = (plan.begin, String::new());
        Self { shown: Some(Shown { bar, begin, walk, due: 0, micros, second_began: begin, redraw: begin, last }) }
    }

    pub(crate) fn acknowledged(&mut self, latency: Nanos) {
        if let Some(shown) = &mut self.shown {
            // It grows with its values.
            shown.micros.record(latency.0 / 1_000).ok();
        }
    }

    /// Redraws the line when it is time to.
    pub(crate) fn look(&mut self, now: Nanos, acknowledged: u64) {
        let Some(shown) = &mut self.shown else { return };
        if now < shown.redraw {
            return;
        }
        shown.redraw = now + REDRAW;
        let elapsed = now - shown.begin;
        while shown.walk.next_if(|due| due.at <= elapsed).is_some() {
            shown.due += 1;
        }
        if now - shown.second_began >= SECOND {
            shown.last = of_second(&shown.micros, now - shown.second_began);
            shown.micros.reset();
            shown.second_began = now;
        }
        let behind = shown.due.saturating_sub(acknowledged);
        shown.bar.set_position(elapsed.0 / 1_000_000);
        shown.bar.set_message(format!("{} due, {behind} under way{}", shown.due, shown.last));
    }

    pub(crate) fn end(&self) {
        if let Some(shown) = &self.shown {
            shown.bar.finish_and_clear();
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "rounded for the eye")]
fn of_second(micros: &Histogram<u64>, span: Nanos) -> String {
    if micros.is_empty() {
        return "; nothing acknowledged in the last second".to_owned();
    }
    let ms = |q: f64| micros.value_at_quantile(q) as f64 / 1e3;
    let rate = micros.len() as f64 * 1e9 / span.0 as f64;
    format!("; last second {rate:.0}/s, p50 {:.2} ms, p99 {:.2} ms", ms(0.5), ms(0.99))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_told_in_one_line_and_silence_is_told_too() {
        let mut micros = Histogram::new(3).unwrap();
        assert!(of_second(&micros, SECOND).contains("nothing acknowledged"));
        micros.record_n(1_500, 99).unwrap();
        micros.record(90_000).unwrap();
        assert_eq!(of_second(&micros, Nanos::from_millis(2_000)), "; last second 50/s, p50 1.50 ms, p99 1.50 ms");
    }
}
