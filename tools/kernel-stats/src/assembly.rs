//! AMD's machine code as Mesa disassembles it: blocks of instructions, each of one kind.
//! Source: the instruction set manuals of Vega 7nm, RDNA 2, RDNA 3.

/// What an instruction keeps busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The vector unit.
    Vector,
    /// The vector unit, with a dot product.
    Dot,
    /// The vector unit, with a product of matrices.
    Matrix,
    /// The scalar unit.
    Scalar,
    /// The scalar cache.
    ScalarLoad,
    /// Memory: so many bytes for each thread.
    Load(u32),
    /// Memory.
    Store,
    /// Workgroup memory, and what else goes by it.
    Local,
    /// Waits until so many loads, of those that were begun last, are all that is not done; `None`: not for loads.
    Wait(Option<usize>),
    /// A jump to a block.
    Branch(u32),
    /// Waits for the workgroup.
    Barrier,
    /// Nothing that takes time.
    Hint,
}

/// An instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// `v_add_f32_e32`
    pub name: String,
    /// Registers and constants, the result first.
    pub operands: Vec<String>,
    /// What it is.
    pub kind: Kind,
}

/// Instructions that are jumped to at the first alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Its number: `BB3`.
    pub number: u32,
    /// What it does.
    pub instructions: Vec<Instruction>,
}

/// The blocks of a kernel, as they lie.
pub fn blocks(text: &str) -> Vec<Block> {
    let mut all: Vec<Block> = Vec::new();
    for line in text.lines() {
        let line = line.split(';').next().unwrap_or_default().trim();
        let label = line.strip_prefix("BB").and_then(|l| l.strip_suffix(':')).and_then(|l| l.parse().ok());
        match (label, all.last_mut()) {
            (Some(number), _) => all.push(Block { number, instructions: Vec::new() }),
            (None, Some(block)) if !line.is_empty() => block.instructions.push(instruction(line)),
            _ => {}
        }
    }
    all
}

fn instruction(line: &str) -> Instruction {
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let operands = rest.split(',').map(|o| o.trim().to_owned()).filter(|o| !o.is_empty()).collect();
    Instruction { name: name.to_owned(), operands, kind: kind(name, rest) }
}

fn kind(name: &str, rest: &str) -> Kind {
    let is = |prefixes: &[&str]| prefixes.iter().any(|p| name.starts_with(p));
    let target = || rest.trim().strip_prefix("BB").and_then(|n| n.parse().ok());
    match name {
        _ if is(&["v_wmma", "v_swmmac", "v_mfma"]) => Kind::Matrix,
        _ if is(&["v_dot"]) => Kind::Dot,
        _ if is(&["v_"]) => Kind::Vector,
        _ if is(&["s_load", "s_buffer_load", "s_scratch_load"]) => Kind::ScalarLoad,
        _ if is(&["s_waitcnt", "s_wait_"]) => Kind::Wait(loads_left(name, rest)),
        _ if is(&["s_cbranch", "s_branch"]) => Kind::Branch(target().unwrap_or(u32::MAX)),
        _ if is(&["s_barrier"]) => Kind::Barrier,
        _ if is(&[
            "s_nop",
            "s_clause",
            "s_delay",
            "s_inst_prefetch",
            "s_set_inst_prefetch",
            "s_endpgm",
            "s_code_end",
        ]) =>
        {
            Kind::Hint
        }
        _ if is(&["s_sendmsg", "s_sleep", "s_setprio", "s_ttracedata"]) => Kind::Hint,
        _ if is(&["s_"]) => Kind::Scalar,
        _ if is(&["ds_"]) => Kind::Local,
        _ if is(&["buffer_load", "global_load", "flat_load", "scratch_load", "image_load"]) => Kind::Load(bytes(name)),
        _ => Kind::Store,
    }
}

/// Bytes that a load brings, by its name: `buffer_load_dwordx4`, `global_load_b128`, `buffer_load_d16_u8`.
fn bytes(name: &str) -> u32 {
    let width = |(end, bytes): &(&str, u32)| name.ends_with(end).then_some(*bytes);
    let widths = [("x4", 16), ("b128", 16), ("x3", 12), ("b96", 12), ("x2", 8), ("b64", 8), ("dword", 4), ("b32", 4)];
    let narrow = || if name.contains("byte") || name.contains("8") { 1 } else { 2 };
    widths.iter().find_map(width).unwrap_or_else(narrow)
}

/// What a wait leaves in flight: `vmcnt(3) lgkmcnt(0)`, or of RDNA 4 a count for each kind.
fn loads_left(name: &str, rest: &str) -> Option<usize> {
    if name.starts_with("s_wait_loadcnt") {
        let count = rest.split_whitespace().next()?;
        return match count.strip_prefix("0x") {
            Some(hex) => usize::from_str_radix(hex, 16).ok(),
            None => count.parse().ok(),
        };
    }
    rest.split_once("vmcnt(")?.1.split(')').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_of_their_kinds() {
        let of = |line: &str| instruction(line).kind;
        assert_eq!(of("v_fma_f32 v0, v1, v2, v3"), Kind::Vector);
        assert_eq!(of("v_dot4_i32_i8 v0, v1, v2, v0"), Kind::Dot);
        assert_eq!(of("v_wmma_f32_16x16x16_f16 v[0:7], v[8:15], v[16:23], v[0:7]"), Kind::Matrix);
        assert_eq!(of("s_and_b64 exec, exec, vcc"), Kind::Scalar);
        assert_eq!(of("s_buffer_load_dwordx4 s[0:3], s[4:7], 0x10"), Kind::ScalarLoad);
        assert_eq!(of("buffer_load_dwordx4 v[0:3], v4, s[0:3], 0 offen"), Kind::Load(16));
        assert_eq!(of("buffer_load_b96 v[0:2], v4, s[0:3], 0 offen"), Kind::Load(12));
        assert_eq!(of("global_load_dwordx2 v[0:1], v[2:3], off"), Kind::Load(8));
        assert_eq!(of("buffer_load_dword v0, v4, s[0:3], 0 offen"), Kind::Load(4));
        assert_eq!(of("buffer_load_ushort v0, v4, s[0:3], 0 offen"), Kind::Load(2));
        assert_eq!(of("buffer_load_short_d16_hi v0, v4, s[0:3], 0 offen"), Kind::Load(2));
        assert_eq!(of("buffer_load_u8 v0, v4, s[0:3], 0 offen"), Kind::Load(1));
        assert_eq!(of("buffer_load_ubyte v0, v4, s[0:3], 0 offen"), Kind::Load(1));
        assert_eq!(of("buffer_store_dword v0, v4, s[0:3], 0 offen"), Kind::Store);
        assert_eq!(of("ds_read_b128 v[0:3], v4"), Kind::Local);
        assert_eq!(of("s_waitcnt vmcnt(3) lgkmcnt(0)"), Kind::Wait(Some(3)));
        assert_eq!(of("s_waitcnt lgkmcnt(0)"), Kind::Wait(None));
        assert_eq!(of("s_waitcnt_vscnt null, 0x0"), Kind::Wait(None));
        assert_eq!(of("s_wait_loadcnt 0x2"), Kind::Wait(Some(2)));
        assert_eq!(of("s_cbranch_scc1 BB12"), Kind::Branch(12));
        assert_eq!(of("s_barrier"), Kind::Barrier);
        assert_eq!(of("s_clause 0x3"), Kind::Hint);
    }

    #[test]
    fn blocks_are_told_apart_and_comments_left_out() {
        let text = "junk\nBB0:\n\ts_load_dwordx2 s[4:5], s[2:3], null ; f4080101\n\nBB7:\n\ts_endpgm ; bf810000\n";
        let all = blocks(text);
        assert_eq!(all.iter().map(|b| b.number).collect::<Vec<_>>(), [0, 7]);
        assert_eq!(all[0].instructions[0].operands, ["s[4:5]", "s[2:3]", "null"]);
        assert_eq!(all[1].instructions.len(), 1);
    }
}
