//! A pass's shader, expanded, parsed and reflected; no device is needed for any of it.
//!
//! Bindings and the members of `params` are found by name, so ops list them by name and in any order, and a name that only
//! one side knows is an error that says which.

use super::preprocess::{Expanded, Target, expand};
use crate::base::{Error, Result};
use crate::ops::{Caps, Param, Pass};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module, ScalarKind, StorageAccess, TypeInner};

/// A storage binding of a shader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The variable's name.
    pub name: String,
    /// `@binding(index)`, in group 0.
    pub index: u32,
    /// Declared `read_write`.
    pub writes: bool,
    /// Bytes of one element of the array it holds.
    pub stride: u32,
}

/// What a member of `params` holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    U32,
    F32,
    Vec4,
}

/// The `params` uniform.
#[derive(Debug, Clone, Default)]
struct Params {
    index: u32,
    size: u32,
    members: Vec<(String, u32, Kind)>,
}

/// A pass's shader, ready to be compiled.
#[derive(Debug)]
pub struct Shader {
    /// The file's name, without `.wgsl`.
    pub name: &'static str,
    /// What was parsed.
    pub expanded: Expanded,
    /// naga's form of it.
    pub module: Module,
    /// Storage bindings, in order of their index.
    pub bindings: Vec<Binding>,
    /// `@workgroup_size`.
    pub workgroup: [u32; 3],
    /// Bytes of workgroup memory.
    pub shared_bytes: u32,
    params: Option<Params>,
}

impl Shader {
    /// Expands and parses the shader of `pass`.
    pub fn new(pass: &Pass) -> Result<Shader> {
        let expanded = expand(pass, Target::Naga)?;
        let module = naga::front::wgsl::parse_str(&expanded.text).map_err(|e| {
            let line = e.location(&expanded.text).map_or(0, |l| l.line_number as usize);
            Error::format(format!("{}\n{}", e.message(), e.emit_to_string(&expanded.text))).at(expanded.place(line))
        })?;
        let mut shader = Shader {
            name: pass.shader,
            workgroup: [0; 3],
            shared_bytes: shared_bytes(&module),
            bindings: Vec::new(),
            params: None,
            expanded,
            module: Module::default(),
        };
        shader.reflect(&module).map_err(|e| e.at(format!("shaders/{}.wgsl", pass.shader)))?;
        shader.module = module;
        Ok(shader)
    }

    fn reflect(&mut self, module: &Module) -> Result<()> {
        let [entry] = &module.entry_points[..] else {
            return Err(Error::format(format!("{} entry points; one is wanted", module.entry_points.len())));
        };
        self.workgroup = entry.workgroup_size;
        for (_, global) in module.global_variables.iter() {
            let Some(binding) = &global.binding else { continue };
            let name = global.name.clone().unwrap_or_default();
            let inner = &module.types[global.ty].inner;
            match (global.space, inner) {
                (AddressSpace::Uniform, TypeInner::Struct { members, span }) if name == "params" => {
                    let members = members.iter().map(|m| member(module, m)).collect::<Result<_>>()?;
                    self.params = Some(Params { index: binding.binding, size: *span, members });
                }
                (AddressSpace::Storage { access }, TypeInner::Array { stride, .. }) => {
                    let writes = access.contains(StorageAccess::STORE);
                    self.bindings.push(Binding { name, index: binding.binding, writes, stride: *stride });
                }
                _ => {
                    let what = "neither a storage array nor the uniform struct params";
                    return Err(Error::format(format!("binding {} ({name}) is {what}", binding.binding)));
                }
            }
        }
        self.bindings.sort_by_key(|b| b.index);
        let mut indices: Vec<u32> = self.bindings.iter().map(|b| b.index).chain(self.params_index()).collect();
        indices.sort_unstable();
        match indices.windows(2).find(|w| w[0] == w[1]) {
            Some(w) => Err(Error::format(format!("two variables have binding {}", w[0]))),
            None => Ok(()),
        }
    }

    /// The binding called `name`.
    pub fn binding(&self, name: &str) -> Option<&Binding> {
        self.bindings.iter().find(|b| b.name == name)
    }

    /// `@binding` of the `params` uniform, where there is one.
    pub fn params_index(&self) -> Option<u32> {
        self.params.as_ref().map(|p| p.index)
    }

    /// Whether the shader takes the first element of binding `name` as a parameter.
    pub fn takes_offset(&self, name: &str) -> bool {
        let wanted = format!("{name}_offset");
        self.params.iter().flat_map(|p| &p.members).any(|(n, ..)| *n == wanted)
    }

    /// The bytes of `params`: the op's values, and for members called `<binding>_offset` what `offset(binding)` gives.
    /// Members without a value and values without a member are errors.
    pub fn params(&self, given: &[(&str, Param)], offset: &dyn Fn(&str) -> Option<u32>) -> Result<Vec<u8>> {
        let at = || format!("shaders/{}.wgsl", self.name);
        let none = Params::default();
        let params = self.params.as_ref().unwrap_or(&none);
        if let Some((name, _)) = given.iter().find(|(name, _)| !params.members.iter().any(|(n, ..)| n == name)) {
            return Err(Error::format(format!("params has no member {name}")).at(at()));
        }
        let mut bytes = vec![0; params.size as usize];
        for (name, start, kind) in &params.members {
            let value = given.iter().find(|(n, _)| n == name).map(|(_, value)| *value);
            let value = value.or_else(|| Some(Param::U32(offset(name.strip_suffix("_offset")?)?)));
            let value = value.ok_or_else(|| Error::format(format!("params.{name} is given no value")).at(at()))?;
            let out = &mut bytes[*start as usize..];
            match (kind, value) {
                (Kind::U32, Param::U32(v)) => out[..4].copy_from_slice(&v.to_ne_bytes()),
                (Kind::F32, Param::F32(v)) => out[..4].copy_from_slice(&v.to_ne_bytes()),
                (Kind::Vec4, Param::Vec4(v)) => out[..16].copy_from_slice(bytemuck::bytes_of(&v)),
                _ => return Err(Error::format(format!("params.{name} is {kind:?}, given {value:?}")).at(at())),
            }
        }
        Ok(bytes)
    }

    /// Validates with exactly the capabilities that `caps` stand for, and checks workgroup size and memory.
    pub fn validate(&self, caps: &Caps) -> Result<ModuleInfo> {
        let mut naga = Capabilities::empty();
        naga.set(Capabilities::SUBGROUP, caps.subgroups.is_some());
        naga.set(Capabilities::SHADER_FLOAT16, caps.f16);
        naga.set(Capabilities::COOPERATIVE_MATRIX, caps.coop.is_some());
        naga.set(Capabilities::SHADER_FLOAT16_IN_FLOAT32, true);
        let mut validator = Validator::new(ValidationFlags::all(), naga);
        validator
            .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
            .subgroup_operations(naga::valid::SubgroupOperationSet::all());
        let info = validator.validate(&self.module).map_err(|e| {
            let line = e.location(&self.expanded.text).map_or(0, |l| l.line_number as usize);
            Error::format(e.emit_to_string(&self.expanded.text)).at(self.expanded.place(line))
        })?;
        match self.unfit(caps) {
            Some(why) => Err(Error::format(why).at(format!("shaders/{}.wgsl", self.name))),
            None => Ok(info),
        }
    }

    /// Why its workgroups are too large for a device with `caps`, if they are.
    pub fn unfit(&self, caps: &Caps) -> Option<String> {
        let invocations: u32 = self.workgroup.iter().product();
        if invocations > caps.max_invocations {
            return Some(format!("{invocations} invocations in a workgroup, {} are allowed", caps.max_invocations));
        }
        let (shared, most) = (self.shared_bytes, caps.max_shared);
        (shared > most).then(|| format!("{shared} bytes of workgroup memory, {most} are there"))
    }
}

fn shared_bytes(module: &Module) -> u32 {
    let mut layouter = naga::proc::Layouter::default();
    layouter.update(module.to_ctx()).expect("a parsed module has sized types");
    let shared = module.global_variables.iter().filter(|(_, g)| g.space == AddressSpace::WorkGroup);
    shared.map(|(_, g)| layouter[g.ty].to_stride()).sum()
}

fn member(module: &Module, m: &naga::StructMember) -> Result<(String, u32, Kind)> {
    let name = m.name.clone().unwrap_or_default();
    let kind = match &module.types[m.ty].inner {
        TypeInner::Scalar(s) if s.kind == ScalarKind::Uint => Kind::U32,
        TypeInner::Scalar(s) if s.kind == ScalarKind::Float => Kind::F32,
        TypeInner::Vector { size: naga::VectorSize::Quad, scalar } if scalar.kind == ScalarKind::Uint => Kind::Vec4,
        _ => return Err(Error::format(format!("params.{name} is none of u32, f32, vec4<u32>"))),
    };
    Ok((name, m.offset, kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Meta;
    use crate::ops::{Add, Op};

    fn add() -> Pass {
        let x = Meta::f32([2, 8]);
        Add { scale: 0.5 }.gpu(&[x, x], &x, &Caps::BASELINE).remove(0).passes.remove(0)
    }

    #[test]
    fn reflection_finds_bindings_parameters_and_workgroups() {
        let shader = Shader::new(&add()).unwrap();
        assert_eq!(shader.workgroup, [256, 1, 1]);
        assert_eq!(shader.params_index(), Some(0));
        let names: Vec<_> = shader.bindings.iter().map(|b| (b.name.as_str(), b.index, b.writes, b.stride)).collect();
        assert_eq!(names, [("a", 1, false, 4), ("b", 2, false, 4), ("y", 3, true, 4)]);
        assert!(shader.takes_offset("a") && !shader.takes_offset("c"));
        assert_eq!(shader.shared_bytes, 0);
        shader.validate(&Caps::BASELINE).unwrap();
        assert!(shader.validate(&Caps { max_invocations: 128, ..Caps::BASELINE }).is_err());
    }

    #[test]
    fn parameters_go_where_the_shader_has_them() {
        let (pass, offset) = (add(), |name: &str| Some(if name == "b" { 77 } else { 0 }));
        let shader = Shader::new(&pass).unwrap();
        let bytes = shader.params(&pass.params, &offset).unwrap();
        let words: &[u32] = bytemuck::cast_slice(&bytes);
        // rows, n, a_stride, a_offset, b_stride, b_offset, y_offset, scale
        assert_eq!(words[..8], [2, 8, 8, 0, 8, 77, 0, 0.5f32.to_bits()]);
    }

    #[test]
    fn names_that_only_one_side_knows_are_errors() {
        let (pass, offset) = (add(), |_: &str| Some(0));
        let shader = Shader::new(&pass).unwrap();
        let error = |params: &[(&'static str, Param)], offset: &dyn Fn(&str) -> Option<u32>| {
            shader.params(params, offset).unwrap_err().to_string()
        };
        let with = |extra| [&pass.params[..], &[extra]].concat();
        assert_eq!(error(&with(("colour", Param::U32(1))), &offset), "shaders/add.wgsl: params has no member colour");
        assert_eq!(error(&pass.params[1..], &offset), "shaders/add.wgsl: params.rows is given no value");
        assert_eq!(error(&pass.params, &|_| None), "shaders/add.wgsl: params.a_offset is given no value");
        let mut wrong = pass.params.clone();
        wrong[0].1 = Param::F32(1.0);
        assert_eq!(error(&wrong, &offset), "shaders/add.wgsl: params.rows is U32, given F32(1.0)");
    }

    #[test]
    fn a_shader_that_does_not_parse_names_its_file_and_line() {
        let mut pass = add();
        pass.consts.clear();
        let error = Shader::new(&pass).unwrap_err().to_string();
        assert!(error.starts_with("shaders/add.wgsl:") && error.contains("WG"), "{error}");
    }
}
