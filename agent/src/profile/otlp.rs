//! OpenTelemetry profiles: a profile in, a `ProfilesData` message out, which is what a collector's file reader and the body
//! of an export request hold. A resource for each container, one for the rest, as the specification asks of a profiler
//! of a whole host.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::RandomState;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::profiles::v1development as otlp;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;

use super::format::About;
use super::heading::losses;
use super::labels::{Value, labels};
use super::model::{Origin, Profile, Stack};
use super::strings::Strings;
use crate::units::{Nanos, ProfileKind};

/// The message.
pub(super) fn profile_otlp(profile: &Profile, about: &About) -> Vec<u8> {
    let mut tables = Tables::of(profile);
    let mut by_container: BTreeMap<Option<&str>, Vec<otlp::Sample>> = BTreeMap::new();
    for stack in &profile.stacks {
        let container = profile.owner_of(stack).and_then(|owner| owner.container.as_deref());
        by_container.entry(container).or_default().push(tables.sample(profile, stack));
    }
    let resource_profiles = by_container
        .into_iter()
        .map(|(container, samples)| resource(container, one(profile, about, samples, &mut tables)))
        .collect();
    otlp::ProfilesData { resource_profiles, dictionary: Some(tables.finish()) }.encode_to_vec()
}

fn resource(container: Option<&str>, profile: otlp::Profile) -> otlp::ResourceProfiles {
    let attributes = container.map(|id| KeyValue {
        key: "container.id".to_owned(),
        value: Some(AnyValue { value: Some(Any::StringValue(id.to_owned())) }),
        ..KeyValue::default()
    });
    otlp::ResourceProfiles {
        resource: Some(Resource { attributes: attributes.into_iter().collect(), ..Resource::default() }),
        scope_profiles: vec![otlp::ScopeProfiles {
            scope: Some(InstrumentationScope {
                name: "tidegate".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                ..InstrumentationScope::default()
            }),
            profiles: vec![profile],
            schema_url: String::new(),
        }],
        schema_url: String::new(),
    }
}

fn one(profile: &Profile, about: &About, samples: Vec<otlp::Sample>, tables: &mut Tables) -> otlp::Profile {
    let kind = profile.kind;
    let (what, unit) = match kind {
        ProfileKind::Cpu => ("samples", "count"),
        ProfileKind::Offcpu => ("off_cpu", kind.unit()),
        ProfileKind::Wakeup => ("wakeups", "count"),
        ProfileKind::Runq | ProfileKind::Wall | ProfileKind::Sock => (kind.name(), kind.unit()),
    };
    let mut out = otlp::Profile {
        sample_type: Some(tables.value_type(what, unit)),
        samples,
        time_unix_nano: about.began.map_or(0, |began| began.0),
        duration_nano: profile.end.since(profile.start).0,
        attribute_indices: vec![tables.attribute("tidegate.lost", &Value::Text(losses(profile).into()))],
        ..otlp::Profile::default()
    };
    if let Some(Nanos(period)) = about.period {
        out.period_type = Some(tables.value_type("cpu", "nanoseconds"));
        out.period = i64::try_from(period).unwrap_or(i64::MAX);
    }
    out
}

/// The tables that all profiles of a message share. The first row of each is empty: 0 stands for "none".
struct Tables {
    strings: Strings,
    functions: Vec<otlp::Function>,
    locations: Vec<otlp::Location>,
    mappings: Vec<otlp::Mapping>,
    stacks: Vec<otlp::Stack>,
    stack_of: HashMap<Vec<i32>, i32, RandomState>,
    attributes: Vec<otlp::KeyValueAndUnit>,
    attribute_of: HashMap<(i32, Value<'static>), i32, RandomState>,
}

impl Tables {
    fn of(profile: &Profile) -> Self {
        let mut strings = Strings::new();
        let kernel = strings.add("[kernel]");
        let mappings =
            vec![otlp::Mapping::default(), otlp::Mapping { filename_strindex: kernel, ..otlp::Mapping::default() }];
        let mut functions = vec![otlp::Function::default()];
        let mut locations = vec![otlp::Location::default()];
        for (function_index, frame) in (1..).zip(&profile.frames) {
            let name_strindex = strings.add(&frame.name);
            functions.push(otlp::Function { name_strindex, ..otlp::Function::default() });
            locations.push(otlp::Location {
                mapping_index: i32::from(frame.origin == Origin::Kernel),
                lines: vec![otlp::Line { function_index, ..otlp::Line::default() }],
                ..otlp::Location::default()
            });
        }
        Self {
            strings,
            functions,
            locations,
            mappings,
            stacks: vec![otlp::Stack::default()],
            stack_of: HashMap::from_iter([(Vec::new(), 0)]),
            attributes: vec![otlp::KeyValueAndUnit::default()],
            attribute_of: HashMap::default(),
        }
    }

    fn sample(&mut self, profile: &Profile, stack: &Stack) -> otlp::Sample {
        let place = |frame: &u32| i32::try_from(*frame).ok()?.checked_add(1);
        let path: Vec<i32> = stack.frames.iter().rev().filter_map(place).collect();
        let next = count(self.stacks.len());
        let stack_index = *self.stack_of.entry(path).or_insert_with_key(|path| {
            self.stacks.push(otlp::Stack { location_indices: path.clone() });
            next
        });
        let attribute_indices = labels(profile, stack)
            .into_iter()
            // The container is the resource's.
            .filter(|(key, _)| *key != "container")
            .map(|(key, value)| self.attribute(semantic(key), &value))
            .collect();
        let value = i64::try_from(stack.value(profile.kind)).unwrap_or(i64::MAX);
        otlp::Sample { stack_index, attribute_indices, values: vec![value], ..otlp::Sample::default() }
    }

    fn attribute(&mut self, key: &'static str, value: &Value<'_>) -> i32 {
        let key_strindex = self.strings.add(key);
        let value = match value {
            Value::Text(text) => Value::Text(text.clone().into_owned().into()),
            Value::Number(number) => Value::Number(*number),
        };
        let next = count(self.attributes.len());
        *self.attribute_of.entry((key_strindex, value)).or_insert_with_key(|(_, value)| {
            let value = match value {
                Value::Text(text) => Any::StringValue(text.to_string()),
                Value::Number(number) => Any::IntValue(i64::from(*number)),
            };
            let value = Some(AnyValue { value: Some(value) });
            self.attributes.push(otlp::KeyValueAndUnit { key_strindex, value, unit_strindex: 0 });
            next
        })
    }

    fn value_type(&mut self, what: &str, unit: &str) -> otlp::ValueType {
        otlp::ValueType { type_strindex: self.strings.add(what), unit_strindex: self.strings.add(unit) }
    }

    fn finish(self) -> otlp::ProfilesDictionary {
        otlp::ProfilesDictionary {
            mapping_table: self.mappings,
            location_table: self.locations,
            function_table: self.functions,
            link_table: vec![otlp::Link::default()],
            string_table: self.strings.finish(),
            attribute_table: self.attributes,
            stack_table: self.stacks,
        }
    }
}

/// The name that the semantic conventions have for a label.
fn semantic(label: &'static str) -> &'static str {
    match label {
        "comm" => "thread.name",
        "pid" => "process.pid",
        "uid" => "process.user.id",
        "cgroup" => "process.linux.cgroup",
        "reason" => "tidegate.blocked.reason",
        other => other,
    }
}

fn count(length: usize) -> i32 {
    i32::try_from(length).unwrap_or(i32::MAX)
}
