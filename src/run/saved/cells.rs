//! Cells of caches, from their devices and onto them, page by page.

use super::super::engine::Engine;
use crate::base::{Checksum, Meta, Result};
use crate::graph::{Cache, CachePart, Storage};
use crate::state::PAGE_CELLS;
use std::ops::Range;

/// Bytes that are carried at a time: a GPU needs a buffer of that size for them.
const PIECE: usize = 1 << 20;

/// A layer's keys or values.
pub struct LayerCache {
    /// Its group of layers.
    pub group: usize,
    cache: Cache,
    meta: Meta,
}

impl LayerCache {
    /// Bytes of a page.
    pub fn page_bytes(&self) -> usize {
        PAGE_CELLS * self.meta.dtype.row_bytes(self.meta.inner()).expect("cells are whole blocks")
    }
}

impl Engine {
    /// The keys and values of all layers, in their order.
    pub(in crate::run) fn layer_caches(&self) -> Vec<LayerCache> {
        let all = self.caches().into_iter().map(|(group, cache, meta)| LayerCache { group, cache, meta });
        let mut all: Vec<LayerCache> = all.collect();
        all.sort_by_key(|layer| (layer.cache.layer, layer.cache.part == CachePart::Value));
        all
    }

    /// A checksum of what keys depend on beside the model: the tables of rotary angles, which some models choose by the context, and whether
    /// queries beyond the original context grow.
    pub(in crate::run) fn rotation(&self) -> String {
        let mut sum = Checksum::default();
        let decode = self.programs.iter().find(|program| program.decodes());
        let buffers = decode.map_or(&[][..], |program| &program.graph.buffers);
        for buffer in buffers {
            match &buffer.storage {
                Storage::Const(name, table) if name.starts_with("rope_frequencies") => sum.add(table),
                // Its length is the context's, its values are not.
                Storage::Const(name, _) if name == "attn_temperature" => sum.add(name.as_bytes()),
                _ => {}
            }
        }
        format!("{:016x}", sum.value())
    }

    /// Reads pages of a layer's cache, whatever device it lies on, piece by piece.
    pub(in crate::run) async fn read_pages(
        &mut self,
        layer: &LayerCache,
        pages: &[u32],
        take: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        self.make_room(2 * PIECE.max(layer.page_bytes()) as u64);
        for cells in runs(pages, PIECE / layer.page_bytes()) {
            if let Some(bytes) = self.memory.cells(layer.cache, &layer.meta, cells.clone()) {
                take(bytes)?;
            } else if let Some(gpu) = &mut self.gpu
                && let Some(bytes) = gpu.memory.read_cells(layer.cache, &layer.meta, cells).await?
            {
                take(&bytes)?;
            } else {
                unreachable!("every cache lies on a device");
            }
        }
        Ok(())
    }

    /// Writes pages of a layer's cache, whatever device it lies on, piece by piece: `fill` gets what is to be filled.
    pub(in crate::run) async fn write_pages(
        &mut self,
        layer: &LayerCache,
        pages: &[u32],
        fill: &mut dyn FnMut(&mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let mut piece = Vec::new();
        for cells in runs(pages, PIECE / layer.page_bytes()) {
            if let Some(bytes) = self.memory.cells_mut(layer.cache, &layer.meta, cells.clone()) {
                fill(bytes)?;
                continue;
            }
            piece.resize(cells.len() / PAGE_CELLS * layer.page_bytes(), 0);
            fill(&mut piece)?;
            let gpu = self.gpu.as_mut().expect("every cache lies on a device");
            let known = gpu.memory.write_cells(layer.cache, &layer.meta, cells.start, &piece).await?;
            assert!(known, "every cache lies on a device");
        }
        Ok(())
    }
}

/// The cells of pages, those that follow each other at once: of `most` pages, or of one.
fn runs(pages: &[u32], most: usize) -> impl Iterator<Item = Range<usize>> {
    let mut rest = pages;
    std::iter::from_fn(move || {
        let first = *rest.first()?;
        let count = rest.iter().zip(first..).take(most.max(1)).take_while(|(page, next)| *page == next).count();
        rest = &rest[count..];
        let first = first as usize * PAGE_CELLS;
        Some(first..first + count * PAGE_CELLS)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_follow_each_other_are_carried_together() {
        let of = |pages: &[u32], most| {
            runs(pages, most).map(|cells| (cells.start / 64, cells.len() / 64)).collect::<Vec<_>>()
        };
        assert_eq!(of(&[3, 4, 5, 9, 8, 7], 10), [(3, 3), (9, 1), (8, 1), (7, 1)]);
        assert_eq!(of(&[0, 1, 2, 3, 4], 2), [(0, 2), (2, 2), (4, 1)]);
        assert_eq!(of(&[6, 7], 0), [(6, 1), (7, 1)]);
        assert_eq!(of(&[], 4), []);
    }
}
