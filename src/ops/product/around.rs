//! What stands around products: the norm before, pairs sorted by expert, rows brought into the range of f16, experts' sums.

use super::{PRODUCTS, Product};
use crate::base::Meta;
use crate::ops::linear::{PreNorm, Then};
use crate::ops::{Bind, Combine, Kernel, Op, Pass, line};

impl Product<'_> {
    /// The norm before, where the op has one, as part of `pass`.
    pub(super) fn norm(&self, pass: &mut Pass) {
        let (flag, eps) = match self.op.norm {
            None => return,
            Some(PreNorm::Rms { eps, .. }) => ("RMS", eps),
            Some(PreNorm::Layer { eps, .. }) => ("LAYER", eps),
        };
        pass.flags.extend(["NORM", flag]);
        pass.params.push(("eps", eps.into()));
        for (i, (flag, name)) in self.at.norm.clone().zip([("NORM_W", "norm_w"), ("NORM_B", "norm_b")]) {
            pass.flags.push(flag);
            pass.binds.push((name, Bind::Src(i)));
        }
    }

    /// `kernel` of tiles of so many tokens, behind the pass that sorts pairs by expert. It has no scratch yet.
    pub(super) fn sorted(&self, mut kernel: Kernel, ids: &Meta, tokens: usize) -> Kernel {
        kernel.passes.insert(0, self.sort_pass(ids, tokens));
        kernel.scratch = vec![16 * self.tiles(ids, tokens), 4 * ids.shape.elements()];
        kernel
    }

    /// `kernel`, and then the sums of the experts' `products`.
    pub(super) fn combine(&self, mut kernel: Kernel, products: Meta) -> Kernel {
        let at = kernel.scratch.len();
        kernel.scratch.push(products.span_bytes());
        kernel.passes.push(self.combine_pass(&products));
        kernel.rebind(|bind| if bind == PRODUCTS { Bind::Scratch(at) } else { bind })
    }

    fn sort_pass(&self, ids: &Meta, tokens: usize) -> Pass {
        Pass {
            shader: "matmul_id_sort",
            consts: vec![("EXPERTS", self.w.outer() as u32), ("TOKENS", tokens as u32)],
            params: vec![
                ("pairs", ids.shape.elements().into()),
                ("used", ids.shape[1].into()),
                ("tiles", self.tiles(ids, tokens).into()),
                ("ids_stride", ids.stride.into()),
            ],
            binds: vec![
                ("ids", Bind::Src(self.at.ids.expect("ids"))),
                ("tiles", Bind::Scratch(0)),
                ("order", Bind::Scratch(1)),
            ],
            workgroups: [1, 1, 1],
            ..Pass::default()
        }
    }

    /// Finds factors that bring rows of x into the range of f16.
    pub(super) fn scale_pass(&self, scales: Bind) -> Pass {
        let rows = self.x.shape.rows();
        Pass {
            shader: "row_scale",
            consts: vec![("WG", 64)],
            params: vec![
                ("rows", rows.into()),
                ("n", self.k().into()),
                ("per_token", (rows / self.x.outer()).into()),
                ("x_stride", self.x.stride.into()),
            ],
            binds: vec![("x", self.x_bind), ("scales", scales)],
            workgroups: line(rows, self.caps),
            ..Pass::default()
        }
    }

    /// Sums the experts' products.
    fn combine_pass(&self, products: &Meta) -> Pass {
        let factors = self.at.factors.expect("experts are weighted");
        let mut metas = vec![*products, self.src[factors]];
        metas.extend(self.at.residual.map(|i| self.src[i]));
        let dst = Meta::f32([products.shape[0], products.shape[2]]);
        let scale = if let Then::Combine { add: Some(scale) } = self.op.then { scale } else { 1.0 };
        let kernel = Combine { scale }.gpu(&metas, &dst, self.caps).remove(0).rebind(|bind| match bind {
            Bind::Src(0) => PRODUCTS,
            Bind::Src(1) => Bind::Src(factors),
            Bind::Src(_) => Bind::Src(self.at.residual.expect("a third source")),
            bind => bind,
        });
        kernel.passes.into_iter().next().expect("one pass")
    }
}
