//! Every shader of every op, without a GPU: expanded, validated with exactly the capabilities that it may use, its bindings
//! and parameters compared with what the op gives, and translated for every backend.

#[path = "common/shaders.rs"]
mod shaders;

use naga::back::{hlsl, msl, spv, wgsl};
use naga::valid::ModuleInfo;
use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use wgpu_llm::low_level::base::{DType, Meta, Role};
use wgpu_llm::low_level::gpu::{COOP, Shader, names, source};
use wgpu_llm::low_level::ops::{Attention, Bind, CACHE_TYPES, CacheTypes, Caps, Op};

/// Storage buffers that every WebGPU device can bind at once.
const MAX_BINDINGS: usize = 8;

#[test]
fn every_shader_is_valid_for_every_kind_of_device() {
    let (mut checked, mut texts, mut failures) = (0, HashSet::new(), BTreeSet::new());
    for (preset, caps) in shaders::presets() {
        for variant in shaders::variants(&caps) {
            checked += 1;
            match check(&variant, &caps, &mut texts) {
                Ok(()) => {}
                Err(e) => drop(failures.insert(format!("{preset}, {}: {e}", variant.name))),
            }
        }
    }
    println!(
        "shaders: {checked} checked on {} kinds of device, {} texts translated",
        shaders::presets().len(),
        texts.len()
    );
    let failures: Vec<String> = failures.into_iter().collect();
    assert!(failures.is_empty(), "{} fail:\n{}", failures.len(), failures.join("\n"));
}

fn check(variant: &shaders::Variant, caps: &Caps, texts: &mut HashSet<String>) -> Result<(), String> {
    let (pass, text) = (&variant.pass, |e: wgpu_llm::low_level::base::Error| e.to_string());
    let shader = Shader::new(pass).map_err(text)?;
    let info = shader.validate(caps).map_err(text)?;
    let bind = |name: &str| pass.binds.iter().find(|(n, _)| *n == name);
    shader.params(&pass.params, &|name| bind(name).map(|_| 0)).map_err(text)?;
    if let Some(b) = shader.bindings.iter().find(|b| bind(&b.name).is_none()) {
        return Err(format!("binding {} is given nothing", b.name));
    }
    for (name, bind) in &pass.binds {
        let binding = shader.binding(name).ok_or_else(|| format!("there is no binding {name}"))?;
        let known = match *bind {
            Bind::Src(i) => i < variant.sources && (!binding.writes || variant.updates.contains(&i)),
            Bind::Shard { of, .. } | Bind::Stack(of) => of.sources().end <= variant.sources && !binding.writes,
            Bind::Scratch(i) => i < variant.scratch,
            Bind::Dst => binding.writes,
        };
        if !known {
            return Err(format!("binding {name} (writes: {}) is given {bind:?}", binding.writes));
        }
    }
    if shader.bindings.len() > MAX_BINDINGS {
        return Err(format!("{} storage bindings, portable are {MAX_BINDINGS}", shader.bindings.len()));
    }
    if let Some(n) = pass.workgroups.iter().find(|n| **n > caps.max_workgroups) {
        return Err(format!("{n} workgroups, allowed {}", caps.max_workgroups));
    }
    if texts.insert(shader.expanded.text.clone()) {
        translate(&shader, &info, pass.flags.contains(&COOP))?;
    }
    Ok(())
}

/// Of heads as wide as any model's, whatever keys and values are made of, where workgroups have as little memory as browsers promise.
#[test]
fn wide_heads_have_kernels_on_every_kind_of_device() {
    let mut checked = 0;
    for (dim, shared) in [(512, 16), (576, 16), (1024, 16), (576, 32), (1024, 32)] {
        let caps = Caps { max_shared: shared << 10, ..Caps::BASELINE };
        for kv in CACHE_TYPES.iter().map(|t| CacheTypes::from(*t)).chain(CacheTypes::mixed()) {
            for (tokens, heads) in [(1, 1), (1, 4), (2, 8), (70, 8)] {
                let [keys, values] = [kv.keys, kv.values].map(|t| Meta::new(t, [4096, 1, dim]));
                let q = Meta::f32([tokens, heads, dim]);
                let op = Attention::plain(0.1, if tokens == 1 { Role::Answer } else { Role::Prompt }, 4096);
                let kernels = op.gpu(&[q, keys, values, Meta::new(DType::U32, [2 * tokens + 64])], &q, &caps);
                assert!(
                    !kernels.is_empty(),
                    "{tokens} tokens, {heads} heads of {dim} channels of {kv} in {shared} KiB"
                );
                for pass in kernels.iter().flat_map(|k| &k.passes) {
                    let valid = Shader::new(pass).and_then(|shader| shader.validate(&caps).map(drop));
                    valid.unwrap_or_else(|e| panic!("{dim} channels of {kv} in {shared} KiB: {e}"));
                    checked += 1;
                }
            }
        }
    }
    println!("{checked} passes checked");
}

/// Translates for Vulkan, Metal, DX12 and back to WGSL; matrices of subgroups exist in the first two only.
fn translate(shader: &Shader, info: &ModuleInfo, coop: bool) -> Result<(), String> {
    let module = &shader.module;
    let options = spv::Options { lang_version: (1, 3), ..Default::default() };
    let words = spv::write_vec(module, info, &options, None).map_err(|e| format!("SPIR-V: {e}"))?;
    let options = msl::Options { lang_version: (2, 4), ..Default::default() };
    let metal = msl::write_string(module, info, &options, &msl::PipelineOptions::default());
    let (metal, reflected) = metal.map_err(|e| format!("MSL: {e}"))?;
    reflected.entry_point_names.into_iter().collect::<Result<Vec<_>, _>>().map_err(|e| format!("MSL: {e}"))?;
    assert!(!words.is_empty() && !metal.is_empty());
    if coop {
        return Ok(());
    }
    let options = hlsl::Options { shader_model: hlsl::ShaderModel::V6_0, ..Default::default() };
    let pipeline = hlsl::PipelineOptions { entry_point: None };
    let mut directx = String::new();
    let reflected = hlsl::Writer::new(&mut directx, &options, &pipeline).write(module, info, None);
    let reflected = reflected.map_err(|e| format!("HLSL: {e}"))?;
    reflected.entry_point_names.into_iter().collect::<Result<Vec<_>, _>>().map_err(|e| format!("HLSL: {e}"))?;
    let again = wgsl::write_string(module, info, wgsl::WriterFlags::empty()).map_err(|e| format!("WGSL: {e}"))?;
    naga::front::wgsl::parse_str(&again).map_err(|e| format!("WGSL written by naga: {}", e.emit_to_string(&again)))?;
    assert!(!directx.is_empty());
    Ok(())
}

#[test]
fn every_shader_file_is_used_and_as_on_disk() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders");
    let mut on_disk = BTreeSet::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("shaders/ is there").flatten() {
            match entry.path() {
                path if path.is_dir() => folders.push(path),
                path => {
                    let name = path.strip_prefix(&root).expect("under it").with_extension("");
                    on_disk.insert(name.to_string_lossy().replace('\\', "/"));
                }
            }
        }
    }
    let embedded: BTreeSet<String> = names().into_iter().collect();
    assert_eq!(embedded, on_disk, "shader files come and go unnoticed by cargo: touch src/gpu/preprocess.rs");
    let caps = shaders::presets().into_iter().find(|(name, _)| *name == "all").expect("there is one").1;
    let used: BTreeSet<String> = (shaders::variants(&caps).iter().chain(&shaders::variants(&Caps::BASELINE)))
        .flat_map(|v| Shader::new(&v.pass).expect("checked elsewhere").expanded.lines)
        .filter_map(|line| Some(line?.0))
        .collect();
    let unused: Vec<&String> = embedded.difference(&used).collect();
    assert!(unused.is_empty(), "no op uses {unused:?}");
    for name in &embedded {
        let first = source(name).expect("listed").lines().next().unwrap_or_default();
        assert!(first.starts_with("//"), "shaders/{name}.wgsl does not say what it is in its first line");
    }
}
