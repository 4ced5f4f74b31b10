//! Kernels as the driver gets them: the library's own text, made into SPIR-V as wgpu does it for shaders that it trusts; and what
//! a SPIR-V file says of itself, ours or another's.

use crate::device::Info;
use naga::back::spv;
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::{Expression, Literal};
use wgpu_llm::low_level::gpu::Shader;
use wgpu_llm::low_level::ops::Pass;

/// A kernel to be compiled.
#[derive(Debug, Clone, PartialEq)]
pub struct Module {
    /// SPIR-V.
    pub words: Vec<u32>,
    /// Values of specialization constants, by their ids.
    pub specialization: Vec<(u32, u32)>,
    /// The size that subgroups must have; none: the driver's choice.
    pub subgroup: Option<u32>,
    /// Multiplications and additions that a thread does in one step of the main loop.
    pub macs: Option<u32>,
}

/// The constant by which a shader says how many multiplications and additions a thread does in one step of its main loop.
const MACS: &str = "MACS";

/// The SPIR-V of `pass`, as wgpu's Vulkan back end makes it of shaders without run-time checks.
pub fn module(pass: &Pass, info: &Info) -> Result<Module, String> {
    let shader = Shader::new(pass).map_err(|e| e.to_string())?;
    let valid = shader.validate(&info.caps).map_err(|e| e.to_string())?;
    let entry = shader.module.entry_points[0].name.clone();
    let pipeline = spv::PipelineOptions { entry_point: entry, shader_stage: naga::ShaderStage::Compute };
    let words = spv::write_vec(&shader.module, &valid, &options(&shader, info), Some(&pipeline));
    let words = words.map_err(|e| format!("shaders/{}.wgsl: {e}", pass.shader))?;
    Ok(Module { words, specialization: Vec::new(), subgroup: None, macs: macs(&shader.module) })
}

/// wgpu-hal's `naga_options` (src/vulkan/adapter.rs) with what `compile_stage` changes under `ShaderRuntimeChecks::unchecked()` and
/// `zero_initialize_workgroup_memory: false`, as far as compute shaders see it.
fn options(shader: &Shader, info: &Info) -> spv::Options<'static> {
    use spv::Capability as C;
    let mut capabilities = vec![C::Shader, C::Matrix, C::ImageQuery, C::DerivativeControl];
    let mut add = |there: bool, more: &[C]| capabilities.extend(more.iter().filter(|_| there));
    let subgroups = [
        C::GroupNonUniform,
        C::GroupNonUniformVote,
        C::GroupNonUniformArithmetic,
        C::GroupNonUniformBallot,
        C::GroupNonUniformShuffle,
        C::GroupNonUniformShuffleRelative,
        C::GroupNonUniformQuad,
    ];
    let dots =
        [C::DotProductInputAllKHR, C::DotProductInput4x8BitKHR, C::DotProductInput4x8BitPackedKHR, C::DotProductKHR];
    add(info.caps.subgroups.is_some(), &subgroups);
    add(info.caps.f16, &[C::Float16]);
    add(info.caps.coop.is_some(), &[C::CooperativeMatrixKHR, C::VulkanMemoryModel]);
    add(info.dot, &dots);
    add(info.int8, &[C::Int8]);
    let unchecked = BoundsCheckPolicy::Unchecked;
    // wgpu numbers a layout's bindings anew, without gaps.
    let indices = shader.params_index().into_iter().chain(shader.bindings.iter().map(|b| b.index));
    let mut indices: Vec<u32> = indices.collect();
    indices.sort_unstable();
    let place = |(at, binding): (u32, u32)| {
        let info = spv::BindingInfo { descriptor_set: 0, binding: at, binding_array_size: None };
        (naga::ResourceBinding { group: 0, binding }, info)
    };
    spv::Options {
        lang_version: (1, 6),
        flags: spv::WriterFlags::LABEL_VARYINGS | spv::WriterFlags::FORCE_POINT_SIZE,
        fake_missing_bindings: false,
        binding_map: (0..).zip(indices).map(place).collect(),
        capabilities: Some(capabilities.into_iter().collect()),
        bounds_check_policies: BoundsCheckPolicies {
            index: unchecked,
            buffer: unchecked,
            image_load: unchecked,
            binding_array: unchecked,
        },
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: false,
        emit_int_div_checks: false,
        ..spv::Options::default()
    }
}

fn macs(module: &naga::Module) -> Option<u32> {
    let (_, constant) = module.constants.iter().find(|(_, c)| c.name.as_deref() == Some(MACS))?;
    match module.global_expressions[constant.init] {
        Expression::Literal(Literal::U32(n)) => Some(n),
        _ => None,
    }
}

/// What a binding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A uniform buffer.
    Uniform,
    /// A storage buffer.
    Storage,
}

/// A binding of a SPIR-V module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    /// Its descriptor set.
    pub set: u32,
    /// Its number there.
    pub binding: u32,
    /// What it is.
    pub kind: Kind,
}

/// How a SPIR-V module is bound: its first compute kernel's name, its buffers, its push constants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The entry point.
    pub entry: String,
    /// Buffers, each place once.
    pub bindings: Vec<Binding>,
    /// Bytes of push constants: as many as every device has, or none.
    pub push: u32,
}

/// SPIR-V's first word.
pub const MAGIC: u32 = 0x0723_0203;

impl Interface {
    /// Reads a module.
    pub fn of(words: &[u32]) -> Result<Interface, String> {
        if words.len() < 5 || words[0] != MAGIC {
            return Err("this is not SPIR-V".into());
        }
        let mut interface = Interface { entry: String::new(), bindings: Vec::new(), push: 0 };
        let (mut places, mut blocks) = (Vec::new(), Vec::new());
        let (mut pointers, mut variables) = (Vec::new(), Vec::new());
        let mut at = 5;
        while at < words.len() {
            let (op, len) = (words[at] & 0xffff, (words[at] >> 16) as usize);
            let o = words.get(at + 1..at + len).filter(|_| len > 0).ok_or("the module is cut short")?;
            match (op, o) {
                // OpEntryPoint GLCompute.
                (15, [5, _, name @ ..]) if interface.entry.is_empty() => {
                    let bytes = name.iter().flat_map(|w| w.to_le_bytes()).take_while(|b| *b != 0);
                    interface.entry = String::from_utf8_lossy(&bytes.collect::<Vec<_>>()).into_owned();
                }
                // OpDecorate: Block, BufferBlock, Binding, DescriptorSet.
                (71, [id, kind @ (2 | 3), ..]) => blocks.push((*id, *kind)),
                (71, [id, kind @ (33 | 34), n]) => places.push((*id, *kind, *n)),
                // OpTypePointer: id, storage class, to.
                (32, [id, _, to]) => pointers.push((*id, *to)),
                // OpVariable: type, id, storage class.
                (59, [ty, id, class, ..]) => variables.push((*ty, *id, *class)),
                _ => {}
            }
            at += len;
        }
        if interface.entry.is_empty() {
            return Err("the module has no compute kernel".into());
        }
        let place = |id: u32, kind: u32| places.iter().find(|p| (p.0, p.1) == (id, kind)).map(|p| p.2);
        for (ty, id, class) in variables {
            let to = pointers.iter().find(|p| p.0 == ty).map_or(0, |p| p.1);
            let old = blocks.contains(&(to, 3));
            let kind = match class {
                9 => {
                    interface.push = 128;
                    continue;
                }
                12 => Kind::Storage,
                2 if old => Kind::Storage,
                2 => Kind::Uniform,
                0 => return Err("it binds images or samplers; buffers alone are understood".into()),
                _ => continue,
            };
            let (Some(binding), set) = (place(id, 33), place(id, 34).unwrap_or(0)) else { continue };
            let new = Binding { set, binding, kind };
            if !interface.bindings.iter().any(|b| (b.set, b.binding) == (set, binding)) {
                interface.bindings.push(new);
            }
        }
        Ok(interface)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wgpu_llm::low_level::base::{DType, Meta};
    use wgpu_llm::low_level::ops::{Add, Caps, MatMul, Op};

    fn info() -> Info {
        Info { name: String::new(), driver: String::new(), radv: true, caps: Caps::BASELINE, dot: false, int8: false }
    }

    #[test]
    fn our_modules_bind_buffers_without_gaps() {
        let x = Meta::f32([2, 8]);
        let pass = Add { scale: 0.5 }.gpu(&[x, x], &x, &Caps::BASELINE).remove(0).passes.remove(0);
        let made = module(&pass, &info()).unwrap();
        assert_eq!((made.macs, made.subgroup, made.specialization.len()), (None, None, 0));
        let interface = Interface::of(&made.words).unwrap();
        let mut kinds: Vec<_> = interface.bindings.iter().map(|b| (b.set, b.binding, b.kind)).collect();
        kinds.sort_by_key(|k| k.1);
        let (u, s) = (Kind::Uniform, Kind::Storage);
        assert_eq!(kinds, [(0, 0, u), (0, 1, s), (0, 2, s), (0, 3, s)]);
        assert_eq!((interface.entry.as_str(), interface.push), ("main", 0));
    }

    #[test]
    fn a_product_says_what_a_step_computes() {
        let src = [Meta::new(DType::Q4_0, [2048, 2048]), Meta::f32([3, 2048])];
        let kernel = MatMul.gpu(&src, &Meta::f32([3, 2048]), &Caps::BASELINE).remove(0);
        let made = module(&kernel.passes[0], &info()).unwrap();
        assert!(made.macs.is_some_and(|n| n > 0 && n.is_multiple_of(3)), "{:?}", made.macs);
    }

    #[test]
    fn what_is_no_module_is_an_error() {
        for words in [
            &[][..],
            &[1, 2, 3, 4, 5],
            &[MAGIC, 0, 0, 1],
            &[MAGIC, 0, 0, 1, 0],
            &[MAGIC, 0, 0, 1, 0, 0],
            &[MAGIC, 0, 0, 1, 0, 9 << 16],
        ] {
            assert!(Interface::of(words).is_err(), "{words:?}");
        }
    }
}
