//! The texts that browsers get of all shaders, each once.
// Each test file uses a part of this.
#![allow(dead_code)]

use crate::chromium::Source;
use crate::shaders;
use std::collections::HashSet;
use wgpu_llm::low_level::gpu::{COOP, Expanded, F16, SUBGROUPS, Shader, Target, expand};
use wgpu_llm::low_level::ops::Caps;

/// A text, and where its lines came from.
pub struct Text {
    pub source: Source,
    pub expanded: Expanded,
    /// Its workgroups need more than every device promises.
    pub large: bool,
    /// Bytes of their memory, and their invocations.
    pub shared: u32,
    pub invocations: u32,
    /// What it stands for: what differs otherwise are sizes.
    pub first: First,
}

/// Of what a text is the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum First {
    Nothing,
    /// Its shader with its flags, or its weight format.
    Kind,
    /// Its shader.
    Shader,
}

/// All of them, but for those with matrices of subgroups, which no browser has.
pub fn texts() -> Vec<Text> {
    let mut variants = Vec::new();
    for (_, caps) in shaders::presets() {
        variants.extend(shaders::variants(&caps));
    }
    variants.retain(|v| !v.pass.flags.contains(&COOP));
    variants.sort_by(|a, b| a.name.cmp(&b.name));
    let (mut known, mut shapes, mut formats, mut all) = (HashSet::new(), HashSet::new(), HashSet::new(), Vec::new());
    let mut files = HashSet::new();
    for v in variants {
        let expanded = expand(&v.pass, Target::Browser).unwrap_or_else(|e| panic!("{}: {e}", v.name));
        if !known.insert(expanded.text.clone()) {
            continue;
        }
        let features = [(SUBGROUPS, "subgroups"), (F16, "shader-f16")];
        let features = features.iter().filter(|(flag, _)| v.pass.flags.contains(flag)).map(|(_, f)| *f).collect();
        let shader = Shader::new(&v.pass).unwrap_or_else(|e| panic!("{}: {e}", v.name));
        let (shared, invocations) = (shader.shared_bytes, shader.workgroup.iter().product());
        let large = shader.unfit(&Caps::BASELINE).is_some();
        let new_shape = !large && shapes.insert((v.pass.shader, v.pass.flags.clone()));
        let new_format = !large && formats.insert(v.pass.quant);
        let first = match !large && files.insert(v.pass.shader) {
            true => First::Shader,
            false if new_shape || new_format => First::Kind,
            false => First::Nothing,
        };
        let source = Source { name: v.name, wgsl: expanded.text.clone(), features, pipeline: true };
        all.push(Text { source, expanded, large, shared, invocations, first });
    }
    all
}
