//! What passes between a pipeline and the agent: page layouts and JSON bodies. The agent uses the same types.

mod evidence;
mod guidance;
mod json;
mod page;
mod posted;

pub use evidence::{DescriptorJson, KernelGradeJson, PressureJson, UsageJson};
pub use guidance::{Guidance, GuidanceRow, Purpose, Range};
pub use json::{
    Applied, BeforeAfterJson, Boundary, Caps, CausesJson, DecisionJson, EffectJson, Goal, KnobRange, Knobs, LeaseTerms,
    Mode, ModelJson, Objective, OnExpiry, OverrideRequest, Policy, PredictedJson, Problem, Registration,
    RegistrationReply, SettingsReply, SignalsJson, WatchedProcess,
};
pub use posted::{Acknowledgement, BoundRange, BoundsRequest, ModeRequest, SignalsReport};

pub use page::{
    ABI_VERSION, PAGE_BYTES, REPORT_ABI_VERSION, REPORT_HISTOGRAM_AT, REPORT_HISTOGRAM_SUB_BITS,
    REPORT_HISTOGRAM_UNIT_BITS, REPORT_HISTOGRAM_WORDS, REPORT_MAGIC, REPORT_WORDS, ReportWord, SETTINGS_ABI_AT,
    SETTINGS_MAGIC, SETTINGS_N_AT, SETTINGS_SEQ_AT, SETTINGS_SLOT_AT, SETTINGS_SLOT_BYTES, SETTINGS_VALUES,
    VALUE_BATCH_BYTES, VALUE_FLUSH_INTERVAL_US, VALUE_NAMES, latency_bucket,
};
