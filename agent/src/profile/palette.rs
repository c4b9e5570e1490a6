//! Colours of frames: a frame in, its colour out; the same frame has the same colour in every graph, so that two can be
//! compared by eye. Programs are warm, the kernel is blue, notes of the profiler are grey, threads are sand.

use inferno::flamegraph::color::{Color, PaletteMap};

use super::model::Origin;

/// Colours of frames by the text they have in a folded line.
pub(super) fn palette<'a>(frames: impl Iterator<Item = (&'a str, Shade)>) -> PaletteMap {
    let mut map = PaletteMap::default();
    for (text, shade) in frames {
        map.insert(text, colour(text, shade));
    }
    map
}

/// What decides about a colour beside the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shade {
    /// A thread's name, or the root.
    Thread,
    /// A frame.
    Frame(Origin),
}

fn colour(name: &str, shade: Shade) -> Color {
    // Functions of one module are alike, and yet can be told apart from their neighbours.
    let module = name.rsplit_once("::").map_or(name, |(module, _)| module);
    let (hue, tone) = (spread(module), spread(name));
    let (from, to) = match shade {
        Shade::Thread => ([214, 205, 190], [226, 219, 207]),
        Shade::Frame(Origin::Note) => ([196, 198, 202], [208, 210, 213]),
        Shade::Frame(Origin::Kernel) => ([116, 168, 214], [152, 200, 236]),
        Shade::Frame(Origin::User) => ([238, 132, 64], [252, 214, 104]),
    };
    let mix = |at: usize| {
        let (from, to): (u32, u32) = (from[at], to[at]);
        let much = (hue * 3 + tone) / 4;
        let value = from * (255 - much) / 255 + to * much / 255;
        u8::try_from(value).unwrap_or(u8::MAX)
    };
    Color { r: mix(0), g: mix(1), b: mix(2) }
}

/// A number from 0 to 255 that is the same for the same name on every machine (FNV-1a, folded).
fn spread(name: &str) -> u32 {
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (hash ^ hash >> 8 ^ hash >> 16 ^ hash >> 24) & 0xff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_the_kernel_and_notes_are_never_mistaken_for_each_other() {
        for name in ["main", "app::parse", "do_syscall_64", "[lost: ring_full]", "", "ä::ö"] {
            let user = colour(name, Shade::Frame(Origin::User));
            let kernel = colour(name, Shade::Frame(Origin::Kernel));
            let note = colour(name, Shade::Frame(Origin::Note));
            assert!(user.r > user.b.saturating_add(80), "{user:?} is not warm");
            assert!(kernel.b > kernel.r.saturating_add(60), "{kernel:?} is not blue");
            assert!(note.r.abs_diff(note.b) < 20, "{note:?} is not grey");
        }
    }
}
