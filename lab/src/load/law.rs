//! Laws of arrival: what a person types in, a law and its span out; and the rate that a law has at each instant. Pure but
//! for traces, whose file is opened and checked here.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use tidegate_client::Nanos;

use super::spec::{Spec, parse_rate, within};
use super::trace::Trace;
use crate::time::parse_span;

/// How records arrive. Rates are records a second; all but `Even` and `Trace` are Poisson processes whose rate changes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Law {
    /// One after the other at equal distances.
    Even { rate: u64 },
    /// At a steady rate.
    Poisson { rate: f64 },
    /// At `rate` for `on`, then at `low` for `off`, and again.
    OnOff { rate: f64, low: f64, on: Nanos, off: Nanos },
    /// Markov-modulated, two states: a burst has `factor` times the calm rate, takes `share` of the time and lasts `mean`
    /// on average; `rate` is the mean of both.
    Burst { rate: f64, factor: f64, share: f64, mean: Nanos },
    /// From one rate to the other in a straight line.
    Ramp { from: f64, to: f64, span: Nanos },
    /// Around `rate`, by `swing` of it, once in `day`; begins at the lowest.
    Daily { rate: f64, swing: f64, day: Nanos },
    /// At `rate`; from `at` it rises to `peak` within `rise` and falls back exponentially, to a third in `fall`.
    Flash { rate: f64, peak: f64, at: Nanos, rise: Nanos, fall: Nanos },
    /// What was recorded.
    Trace(Arc<Trace>),
}

/// A law and how long it holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Segment {
    pub(crate) law: Law,
    pub(crate) span: Nanos,
    /// As it was typed.
    pub(crate) text: String,
}

/// One segment after the other.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Traffic(pub(crate) Vec<Segment>);

impl FromStr for Traffic {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',').map(|part| segment(part.trim())).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<&str> = self.0.iter().map(|segment| segment.text.as_str()).collect();
        f.write_str(&parts.join(","))
    }
}

const LAWS: &str = "even, poisson, onoff, burst, ramp, daily, flash or trace";

fn segment(text: &str) -> Result<Segment, String> {
    let mut spec = Spec::new(text).map_err(|e| format!("traffic {e}: one of {LAWS}, like poisson@5000x30s"))?;
    if spec.name == "trace" {
        let speed = spec.take("speed", 1.0, |t| within(t, 1e-6, 1e6, "a factor, like 2"))?;
        let trace = Trace::open(spec.value.as_ref(), speed)?;
        spec.done("speed=FACTOR")?;
        return Ok(Segment { span: trace.span(), law: Law::Trace(Arc::new(trace)), text: text.to_owned() });
    }
    let want = || format!("traffic {text:?}: want {}@RATExSPAN, like {0}@5000x30s", spec.name);
    let (value, span) = spec.value.rsplit_once('x').ok_or_else(want)?;
    let span = parse_span(span).ok().filter(|span| *span > Nanos(0)).ok_or_else(want)?;
    let rate = || parse_rate(value).map_err(|error| format!("traffic {text:?}: {error}"));
    let some = |text: &str| {
        parse_span(text).and_then(|span| if span > Nanos(0) { Ok(span) } else { Err("want more than 0".to_owned()) })
    };
    let (law, known) = match spec.name {
        "even" => {
            let whole = value.parse().ok().filter(|rate| (1..=10_000_000).contains(rate));
            (Law::Even { rate: whole.ok_or_else(want)? }, "nothing more")
        }
        "poisson" => (Law::Poisson { rate: rate()? }, "nothing more"),
        "onoff" => {
            let on = spec.take("on", Nanos::from_millis(1_000), some)?;
            let off = spec.take("off", on, some)?;
            let low = spec.take("low", 0.0, |t| within(t, 0.0, 1e7, "a rate a second, like 100"))?;
            (Law::OnOff { rate: rate()?, low, on, off }, "on=SPAN, off=SPAN and low=RATE")
        }
        "burst" => {
            let factor = spec.take("factor", 10.0, |t| within(t, 1.0, 1e6, "how many times the calm rate, like 10"))?;
            let share = spec.take("share", 0.1, |t| within(t, 1e-6, 0.999, "a share of the time, like 0.1"))?;
            let mean = spec.take("mean", Nanos::from_millis(200), some)?;
            (Law::Burst { rate: rate()?, factor, share, mean }, "factor=TIMES, share=SHARE and mean=SPAN")
        }
        "ramp" => {
            let (from, to) =
                value.split_once('-').ok_or_else(|| format!("traffic {text:?}: want ramp@FROM-TOxSPAN"))?;
            let end = |text| within(text, 0.0, 1e7, "a rate a second, like 100");
            (Law::Ramp { from: end(from)?, to: end(to)?, span }, "nothing more")
        }
        "daily" => {
            let swing = spec.take("swing", 0.8, |t| within(t, 0.0, 1.0, "a share of the rate, like 0.8"))?;
            let day = spec.take("day", span, some)?;
            (Law::Daily { rate: rate()?, swing, day }, "swing=SHARE and day=SPAN")
        }
        "flash" => {
            let rate = rate()?;
            let peak = spec.take("peak", 10.0 * rate, parse_rate)?;
            let at = spec.take("at", Nanos(span.0 / 4), parse_span)?;
            let rise = spec.take("rise", Nanos(span.0 / 50), some)?;
            let fall = spec.take("fall", Nanos(span.0 / 6), some)?;
            (Law::Flash { rate, peak, at, rise, fall }, "peak=RATE, at=SPAN, rise=SPAN and fall=SPAN")
        }
        other => return Err(format!("traffic {text:?}: no law {other:?}: one of {LAWS}")),
    };
    spec.done(known)?;
    Ok(Segment { law, span, text: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_is_read_as_people_write_it() {
        let traffic: Traffic =
            "poisson@5000x30s, onoff@20000x10s:on=500ms:low=10,ramp@100-2000x5s,flash@500x60s".parse().unwrap();
        let half = Nanos::from_millis(500);
        assert_eq!(traffic.0[0].law, Law::Poisson { rate: 5_000.0 });
        assert_eq!(traffic.0[1].law, Law::OnOff { rate: 20_000.0, low: 10.0, on: half, off: half });
        assert_eq!(traffic.0[2].law, Law::Ramp { from: 100.0, to: 2_000.0, span: Nanos::from_millis(5_000) });
        assert_eq!(traffic.to_string().parse(), Ok(traffic), "what is shown can be typed");
    }

    #[test]
    fn what_the_help_shows_as_the_value_of_an_option_is_its_default() {
        for (short, long) in [
            ("onoff@20000x30s", "onoff@20000x30s:on=1s:off=1s:low=0"),
            ("burst@5000x60s", "burst@5000x60s:factor=10:share=0.1:mean=200ms"),
            ("daily@5000x60s", "daily@5000x60s:swing=0.8:day=60s"),
            ("flash@500x60s", "flash@500x60s:peak=5000:at=15s:rise=1200ms:fall=10s"),
        ] {
            let law = |text: &str| text.parse::<Traffic>().unwrap().0[0].law.clone();
            assert_eq!(law(short), law(long));
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_could() {
        for (bad, names) in [
            ("", "like poisson@5000x30s"),
            ("poisson", "like poisson@5000x30s"),
            ("poisson@5000", "want poisson@RATExSPAN"),
            ("poisson@0x3s", "a rate a second above 0"),
            ("poisson@5000x0", "want poisson@RATExSPAN"),
            ("even@2.5x3s", "want even@RATExSPAN"),
            ("uniform@5x3s", "no law \"uniform\""),
            ("ramp@5x3s", "want ramp@FROM-TOxSPAN"),
            ("burst@5x3s:share=2", "share: \"2\": want a share of the time"),
            ("burst@5x3s:mean=0", "mean: want more than 0"),
            ("burst@5x3s:swing=1", "burst takes no \"swing\" (it takes factor=TIMES, share=SHARE and mean=SPAN)"),
            ("onoff@5x3s:on", "\"on\" is not KEY=VALUE"),
            ("trace@/nonexistent/trace", "/nonexistent/trace"),
        ] {
            let error = bad.parse::<Traffic>().unwrap_err();
            assert!(error.contains(names), "{bad:?}: {error}");
        }
    }
}
