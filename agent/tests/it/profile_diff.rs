//! Comparisons: what grew is named, and noise is not.

use tidegate::profile::model::Profile;
use tidegate::profile::{Base, Baseline, Hotspots, diff, diff_svg, diff_text};
use tidegate::units::ProfileKind;

use crate::profile_kit::{Dice, drawn, profile, user};

#[test]
fn a_function_that_grew_is_named_and_its_neighbours_are_not() {
    let before = profile(ProfileKind::Cpu, &[("app;main;parse", 100, 0), ("app;main;write", 900, 0)]);
    // Twice as long, so that every count grew; only `parse` grew as a share.
    let after = profile(ProfileKind::Cpu, &[("app;main;parse", 500, 0), ("app;main;write", 1500, 0)]);
    let diff = diff(&before, &after);
    let first = &diff.functions[0];
    assert_eq!(first.frame, user("parse"));
    assert!((first.own.growth() - 0.15).abs() < 1e-9);
    assert_eq!(first.own.believed, Some(true));
    let main = diff.functions.iter().find(|c| c.frame == user("main")).unwrap();
    assert!(main.all.growth().abs() < 1e-9);
    assert_eq!(main.all.believed, Some(false));
    let text = diff_text(&diff, 10);
    assert!(text.contains("+15.00"), "{text}");
    let (grew, shrank) = text.split_once("shrank").unwrap();
    assert!(grew.contains("parse") && !grew.contains("write"), "{text}");
    assert!(shrank.contains("write"), "{text}");
}

#[test]
fn noise_is_not_called_growth() {
    let mut dice = Dice::new(3);
    // Shares as programs have them: a few that matter and a long tail.
    let chances: Vec<f64> = (1..200).map(|n| 1.0 / f64::from(n)).collect();
    let named = (0..200)
        .filter(|_| {
            let (a, b) = (drawn(&mut dice, 2_000, &chances), drawn(&mut dice, 3_000, &chances));
            diff(&a, &b).functions.iter().any(|c| c.own.believed == Some(true))
        })
        .count();
    // One in twenty is promised; 200 such comparisons give 10 ± 3.
    assert!(named <= 20, "{named} of 200 comparisons of the same program named a change");
}

#[test]
fn real_growth_is_found_among_noise() {
    let mut dice = Dice::new(4);
    let chances: Vec<f64> = (1..200).map(|n| 1.0 / f64::from(n)).collect();
    let mut grown = chances.clone();
    grown[9] *= 3.0;
    let found = (0..100)
        .filter(|_| {
            let (a, b) = (drawn(&mut dice, 3_000, &chances), drawn(&mut dice, 3_000, &grown));
            let diff = diff(&a, &b);
            diff.functions[0].frame == user("f9") && diff.functions[0].own.believed == Some(true)
        })
        .count();
    assert!(found >= 95, "a function that went from 1.7 % to 4.9 % was found {found} times in 100");
}

#[test]
fn waits_of_unknown_sample_counts_are_compared_without_a_verdict() {
    let before = profile(ProfileKind::Offcpu, &[("app;main;wait", 0, 1_000_000), ("app;main;rest", 0, 1_000_000)]);
    let after = profile(ProfileKind::Offcpu, &[("app;main;wait", 0, 3_000_000), ("app;main;rest", 0, 1_000_000)]);
    let diff = diff(&before, &after);
    assert_eq!(diff.functions[0].own.believed, None);
    assert!(diff_text(&diff, 10).contains("cannot be told"));
}

#[test]
fn the_graph_is_red_where_it_grew_blue_where_it_shrank_and_says_what_has_gone() {
    let before = profile(ProfileKind::Cpu, &[("app;main;shrinks", 60, 0), ("app;main;ended", 40, 0)]);
    let after = profile(ProfileKind::Cpu, &[("app;main;shrinks", 500, 0), ("app;main;grows", 500, 0)]);
    let diff = diff(&before, &after);
    for (base, there, gone) in [(Base::After, "grows", "ended"), (Base::Before, "ended", "grows")] {
        let svg = String::from_utf8(diff_svg(&diff, base, "t", "s").unwrap()).unwrap();
        let colour = |name: &str| {
            let at = svg.find(&format!("<title>{name} (")).unwrap_or_else(|| panic!("{base:?} has no {name}"));
            let fill = svg[at..].split_once("fill=\"rgb(").unwrap().1;
            let numbers = fill.split(')').next().unwrap();
            let [r, _, b] =
                <[u8; 3]>::try_from(numbers.split(',').map(|n| n.parse().unwrap()).collect::<Vec<u8>>()).unwrap();
            (r, b)
        };
        let (r, b) = colour("shrinks");
        assert!(b == 255 && r < 250, "{base:?}: shrinks is rgb({r},_,{b})");
        let (r, b) = colour(there);
        assert!(if there == "grows" { r == 255 && b < 250 } else { b == 255 && r < 250 }, "{base:?} {there}: {r} {b}");
        assert!(!svg.contains(&format!("<title>{gone} (")));
        assert!(svg.contains(if base == Base::After { "40.0 % are gone" } else { "50.0 % are new" }), "{base:?}");
    }
}

/// The functions that are named, `baseline` and `now` being drawn with these chances.
fn named(dice: &mut Dice, windows: usize, baseline: &[f64], now: &[f64], burst: f64) -> Vec<String> {
    let mut bursty = |chances: &[f64]| {
        let mut chances = chances.to_vec();
        // A part of the work that comes and goes.
        chances[3] *= 1.0 + burst * dice.next();
        drawn(dice, 1_000, &chances)
    };
    let windows: Vec<_> = (0..windows).map(|_| bursty(baseline)).collect();
    let spots = hotspots(&bursty(now), &windows);
    match spots.grown() {
        Some(found) => found.iter().map(|hotspot| hotspot.frame.name.to_string()).collect(),
        None => vec![format!("too early: {}", spots.windows)],
    }
}

fn hotspots(now: &Profile, windows: &[Profile]) -> Hotspots {
    let mut baseline = Baseline::of(now);
    for window in windows {
        baseline.add(window);
    }
    baseline.judge()
}

#[test]
fn a_hot_spot_is_named_and_what_always_varies_is_not() {
    let mut dice = Dice::new(5);
    let chances: Vec<f64> = (1..100).map(|n| 1.0 / f64::from(n)).collect();
    let mut grown = chances.clone();
    grown[7] *= 4.0;
    let (mut found, mut false_alarms) = (0, 0);
    for _ in 0..100 {
        let alarms = named(&mut dice, 30, &chances, &chances, 3.0);
        false_alarms += usize::from(!alarms.is_empty());
        found += usize::from(named(&mut dice, 30, &chances, &grown, 3.0).contains(&"f7".to_owned()));
    }
    assert!(false_alarms <= 12, "{false_alarms} of 100 quiet windows named a hot spot");
    assert!(found >= 95, "a function that went from 2.4 % to 9 % was named {found} times in 100");
    assert_eq!(named(&mut dice, 4, &chances, &grown, 0.0), ["too early: 4"]);
}

#[test]
fn a_hot_spot_is_said_in_words() {
    let before: Vec<_> = (0..10)
        .map(|n| profile(ProfileKind::Cpu, &[("app;main;parse", 100 + n % 3, 0), ("app;main;write", 900, 0)]))
        .collect();
    let now = profile(ProfileKind::Cpu, &[("app;main;parse", 400, 0), ("app;main;write", 600, 0)]);
    let spots = hotspots(&now, &before);
    let found = spots.grown().expect("ten windows are enough");
    assert_eq!(found.len(), 1);
    let words = found[0].words().expect("it was judged");
    assert!(words.starts_with("parse grew by 29.9 ± 1.6 points, from 10.1 % to 40.0 %"), "{words}");
}
