//! What holds for every profile and every format: totals agree, and no name breaks anything.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::Arc;

use agent_common::LossReason;
use opentelemetry_proto::tonic::profiles::v1development::ProfilesData;
use proptest::prelude::*;
use prost::Message as _;

use super::format::{About, Format, write};
use super::import::folded;
use super::model::{Builder, Frame, Origin, Owner, Profile};
use super::packed::{Packed, Plain};
use super::{diff, diff_svg, folded_text};
use crate::aggregate::lost::Lost;
use crate::symbolize::names::clean;
use crate::units::{Nanos, Pid, ProfileKind};

/// Names as the symbolizer hands them over: hostile, and clean.
fn names() -> impl Strategy<Value = String> {
    let hostile = prop::sample::select(vec![
        "<script>alert(1)</script>",
        "a;b 7\n",
        "x 12",
        "\"'&amp;]]>",
        "\u{0}\u{1b}[31m\u{fffe}",
        "",
        " ",
        "main",
        "_[k]",
        "f_[k]",
        "[lost: ring_full]",
        "ünï::cödé<T>",
        "# c",
        "--",
    ]);
    prop_oneof![hostile.prop_map(str::to_owned), "\\PC{0,12}", "[a-z]{1,3}"].prop_map(|name| clean(&name))
}

fn origins() -> impl Strategy<Value = Origin> {
    prop::sample::select(vec![Origin::User, Origin::Kernel, Origin::Note])
}

fn owners() -> impl Strategy<Value = Owner> {
    let text = |names| prop::option::of(names).prop_map(|text: Option<String>| text.map(Arc::from));
    (names(), prop::option::of(1_u32..9), text(names().boxed()), text(names().boxed())).prop_map(
        |(comm, pid, cgroup, container)| Owner { pid: pid.map(Pid), uid: pid, comm: comm.into(), cgroup, container },
    )
}

fn frames() -> impl Strategy<Value = Vec<Frame>> {
    let frame = (names(), origins()).prop_map(|(name, origin)| Frame { name: name.into(), origin });
    prop::collection::vec(frame, 0..6)
}

/// A profile, and the values that went into it.
fn profiles(kind: ProfileKind) -> impl Strategy<Value = (Profile, u64)> {
    let stack = (owners(), frames(), 1_u64..1_000, 1_u64..10_000_000_000);
    (prop::collection::vec(stack, 1..20), 0_u64..100).prop_map(move |(stacks, lost)| {
        let mut builder = Builder::default();
        let mut total = 0;
        for (owner, frames, samples, weight) in stacks {
            let owner = builder.owner(owner);
            let frames: Vec<u32> = frames.into_iter().map(|frame| builder.frame(&frame.name, frame.origin)).collect();
            builder.add(owner, &frames, samples, weight);
            total += if kind == ProfileKind::Cpu { samples } else { weight };
        }
        let lost = Lost::of(LossReason::RingFull, lost);
        (builder.finish(kind, Nanos(5), Nanos(10_000_000_005), lost), total)
    })
}

fn kinds() -> impl Strategy<Value = ProfileKind> {
    prop::sample::select(ProfileKind::ALL.to_vec())
}

/// Counts of folded text, read as simply as scripts read it.
fn folded_total(text: &str) -> u64 {
    let counted = text.lines().filter(|line| !line.starts_with("# "));
    counted.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
}

fn unzipped(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut out).unwrap();
    out
}

fn number(value: &serde_json::Value) -> f64 {
    value.as_f64().unwrap()
}

/// The total that a reader of the format finds.
#[expect(clippy::cast_precision_loss, reason = "test values are small")]
fn total(profile: &Profile, format: Format) -> f64 {
    let bytes = write(profile, format, &About::default()).unwrap();
    let json = || serde_json::from_slice::<serde_json::Value>(&bytes).unwrap();
    match format {
        Format::Svg => {
            let text = String::from_utf8(bytes).unwrap();
            let (_, from) = text.split_once("total_samples=\"").unwrap();
            from.split('"').next().unwrap().parse().unwrap()
        }
        Format::Folded => folded_total(std::str::from_utf8(&bytes).unwrap()) as f64,
        Format::Json => json()["stacks"].as_array().unwrap().iter().map(|s| number(&s["value"])).sum(),
        Format::Pprof => super::pprof::total_shown(&unzipped(&bytes)) as f64,
        Format::Speedscope => {
            let json = json();
            let profile = &json["profiles"][0];
            let (samples, weights) = (profile["samples"].as_array().unwrap(), profile["weights"].as_array().unwrap());
            assert_eq!(samples.len(), weights.len());
            let frames = json["shared"]["frames"].as_array().unwrap().len() as f64;
            assert!(samples.iter().flat_map(|s| s.as_array().unwrap()).all(|at| number(at) < frames));
            weights.iter().map(number).sum()
        }
        Format::Firefox => {
            let factor = if profile.kind.unit() == "nanoseconds" { 1e6 } else { 1.0 };
            let json = json();
            let threads = json["threads"].as_array().unwrap().iter();
            threads.flat_map(|t| t["samples"]["weight"].as_array().unwrap()).map(|w| number(w) * factor).sum()
        }
        Format::Otlp => {
            let data = ProfilesData::decode(&*bytes).unwrap();
            let scopes = data.resource_profiles.iter().flat_map(|r| &r.scope_profiles);
            let samples = scopes.flat_map(|s| &s.profiles).flat_map(|p| &p.samples);
            samples.flat_map(|s| &s.values).sum::<i64>() as f64
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_format_has_the_total_of_what_was_put_in((profile, sum) in kinds().prop_flat_map(profiles)) {
        for format in Format::ALL {
            let total = total(&profile, format);
            #[expect(clippy::cast_precision_loss, reason = "test values are small")]
            let sum = sum as f64;
            prop_assert!((total - sum).abs() <= 1e-9 * sum, "{format:?}: {total} instead of {sum}");
        }
    }

    #[test]
    fn a_graph_is_well_formed_whatever_names_it_shows((profile, _) in kinds().prop_flat_map(profiles)) {
        let about = About { whose: "<b>&\u{1}".replace('\u{1}', ""), ..About::default() };
        for svg in [
            write(&profile, Format::Svg, &about).unwrap(),
            diff_svg(&diff(&profile, &profile), super::Base::After, "a<b", "c&d").unwrap(),
        ] {
            let text = String::from_utf8(svg).unwrap();
            let bad = text.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t' | '\r') || *c == '\u{fffe}');
            prop_assert_eq!(bad, None);
            let mut reader = quick_xml::Reader::from_str(&text);
            reader.config_mut().check_end_names = true;
            let mut scripts = 0;
            loop {
                match reader.read_event().unwrap() {
                    quick_xml::events::Event::Start(e) => scripts += usize::from(e.name().as_ref() == b"script"),
                    quick_xml::events::Event::Eof => break,
                    _ => {}
                }
            }
            prop_assert_eq!(scripts, 1);
        }
    }

    #[test]
    fn folded_text_is_read_back_as_it_was_written((profile, _) in kinds().prop_flat_map(profiles)) {
        let text = folded_text(&profile);
        let back = folded(&text, profile.kind);
        prop_assert_eq!(&back.notes, &Vec::<String>::new(), "{}", text);
        prop_assert_eq!(back.profile.total(), profile.total());
        // Compared once more: labels, and names that only differ in what a line cannot carry, are gone after the first.
        let again = folded(&folded_text(&back.profile), profile.kind);
        prop_assert_eq!(again, back);
    }

    #[test]
    fn merging_is_associative_and_keeps_every_sample(
        parts in prop::collection::vec(profiles(ProfileKind::Offcpu), 3)
    ) {
        let merge = |parts: &[&Profile]| {
            let mut builder = Builder::default();
            for part in parts {
                builder.merge(part, |_| true);
            }
            builder.finish(ProfileKind::Offcpu, Nanos(0), Nanos(1), Lost::default())
        };
        let [(a, x), (b, y), (c, z)] = &parts[..] else { unreachable!("three were made") };
        let all = merge(&[a, b, c]);
        prop_assert_eq!(&merge(&[&merge(&[a, b]), c]), &all);
        prop_assert_eq!(&merge(&[c, &merge(&[b, a])]), &all);
        prop_assert_eq!(all.total(), x + y + z);
    }

    #[test]
    fn windows_merge_packed_as_they_do_unpacked(
        parts in prop::collection::vec(profiles(ProfileKind::Wall), 3), shown in any::<prop::sample::Index>()
    ) {
        let owners: Vec<&Owner> = parts.iter().flat_map(|(part, _)| &part.owners).collect();
        // One is left out, so that stacks follow of which the beginning was not taken.
        let hidden = *shown.get(&owners);
        let shows = |owner: &Owner| owner != hidden;
        let mut plain = Builder::default();
        for (part, _) in &parts {
            plain.merge(part, shows);
        }
        let windows: Vec<Plain> = parts.iter().map(|(part, _)| Packed::of(part).plain().unwrap()).collect();
        // At once, and one after the other.
        let (mut packed, mut slowly) = (Builder::default(), Builder::default());
        prop_assert!(Plain::merge(&windows, &mut packed, shows).into_iter().all(|merged| merged.is_ok()));
        for window in windows {
            Plain::merge(&[window], &mut slowly, shows);
        }
        let finish = |builder: Builder| builder.finish(ProfileKind::Wall, Nanos(0), Nanos(1), Lost::default());
        let plain = finish(plain);
        prop_assert_eq!(&finish(packed), &plain);
        prop_assert_eq!(&finish(slowly), &plain);
    }

    #[test]
    fn a_profile_does_not_differ_from_itself((profile, _) in profiles(ProfileKind::Cpu)) {
        let diff = diff(&profile, &profile);
        let mut shares = BTreeMap::new();
        for change in &diff.functions {
            prop_assert!(change.own.growth().abs() < 1e-12 && change.own.believed == Some(false));
            shares.insert(change.frame.clone(), change.own.after);
        }
        prop_assert!(shares.values().sum::<f64>() <= 1.0 + 1e-9);
    }
}

#[test]
fn a_cut_graph_keeps_the_total_and_says_what_it_left_out() {
    let mut builder = Builder::default();
    let big = builder.owner(Owner::named("big".into()));
    let main = builder.frame("main", Origin::User);
    builder.add(big, &[main], 1_000_000, 0);
    for number in 0..30 {
        let frame = builder.frame(&format!("tiny{number}"), Origin::User);
        builder.add(big, &[main, frame], 3, 0);
        let owner = builder.owner(Owner::named(format!("thread{number}").into()));
        builder.add(owner, &[frame], 2, 0);
    }
    let profile = builder.finish(ProfileKind::Cpu, Nanos(0), Nanos::SECOND, Lost::default());
    let svg = String::from_utf8(write(&profile, Format::Svg, &About::default()).unwrap()).unwrap();
    assert!((total(&profile, Format::Svg) - 1_000_150.0).abs() < 0.5);
    assert!(!svg.contains("tiny1"));
    assert!(svg.contains("90 narrower frames are not drawn, 150 samples end in them"), "{}", &svg[..3000]);
}
