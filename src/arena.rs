//! Slots with generations: where connections, vhosts and listeners live.

use crate::id::INDEX_MASK;

/// A table whose entries are named by index and generation.
///
/// A removed entry's slot is handed out again only after [`Arena::recycle`], which the loop calls
/// at the start of a turn: inside the batch of events in which an entry ended nobody else can
/// have its place.
#[derive(Debug)]
pub(crate) struct Arena<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    retired: Vec<u32>,
    live: usize,
}

#[derive(Debug)]
struct Slot<T> {
    /// The generation, and in the lowest bit whether the name of that generation is valid.
    state: u64,
    /// `None` also while an entry is lifted: its owner puts it back or removes it.
    entry: Option<T>,
}

impl<T> Slot<T> {
    const fn generation(&self) -> u64 {
        self.state >> 1
    }

    const fn is_live(&self) -> bool {
        self.state & 1 != 0
    }
}

impl<T> Arena<T> {
    pub(crate) const fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            retired: Vec::new(),
            live: 0,
        }
    }

    /// Entries that were inserted and not removed, the lifted ones included.
    pub(crate) fn len(&self) -> usize {
        self.live
    }

    /// `None` when every index that a token can carry is in use.
    pub(crate) fn insert(&mut self, make: impl FnOnce(u32, u64) -> T) -> Option<(u32, u64)> {
        let index = match self.free.pop() {
            Some(index) => index,
            None => self.grow()?,
        };
        let slot = self.slots.get_mut(index as usize)?;
        let generation = slot.generation();
        slot.entry = Some(make(index, generation));
        slot.state |= 1;
        self.live += 1;
        Some((index, generation))
    }

    fn grow(&mut self) -> Option<u32> {
        let index = self.slots.len();
        if index > INDEX_MASK {
            return None;
        }
        self.slots.push(Slot {
            state: 0,
            entry: None,
        });
        u32::try_from(index).ok()
    }

    pub(crate) fn get(&self, index: u32, generation: u64) -> Option<&T> {
        let slot = self.slots.get(index as usize)?;
        slot.entry
            .as_ref()
            .filter(|_| slot.state == name(generation))
    }

    /// Who is at `index` now, unless lifted.
    pub(crate) fn at(&self, index: u32) -> Option<&T> {
        self.slots.get(index as usize)?.entry.as_ref()
    }

    pub(crate) fn get_mut(&mut self, index: u32, generation: u64) -> Option<&mut T> {
        self.slot_mut(index, generation)?.entry.as_mut()
    }

    /// The whole generation of the entry now at `index`, if there is one.
    pub(crate) fn generation(&self, index: u32) -> Option<u64> {
        let slot = self.slots.get(index as usize)?;
        slot.is_live().then(|| slot.generation())
    }

    /// Takes the entry out; its name stays valid until [`Arena::remove`].
    pub(crate) fn lift(&mut self, index: u32, generation: u64) -> Option<T> {
        self.slot_mut(index, generation)?.entry.take()
    }

    /// The place of an entry that is not lifted, for who knows only some bits of the generation,
    /// which `fits` compares. Who takes it out has lifted it.
    #[inline(always)]
    pub(crate) fn place_any(
        &mut self,
        index: u32,
        fits: impl FnOnce(u64) -> bool,
    ) -> Option<&mut Option<T>> {
        let slot = self.slots.get_mut(index as usize)?;
        // There is no entry in a slot that is not live.
        fits(slot.generation()).then_some(&mut slot.entry)
    }

    /// The empty place of an entry that was lifted just now, for who knows that nobody can have
    /// removed it.
    #[inline(always)]
    pub(crate) fn place_of_lifted(&mut self, index: u32) -> Option<&mut Option<T>> {
        let slot = self.slots.get_mut(index as usize)?;
        debug_assert!(slot.is_live() && slot.entry.is_none(), "it was lifted");
        Some(&mut slot.entry)
    }

    /// Puts back what [`Arena::lift`] took.
    #[inline]
    pub(crate) fn restore(&mut self, index: u32, generation: u64, value: T) {
        if let Some(slot) = self.slot_mut(index, generation) {
            debug_assert!(slot.entry.is_none(), "only a lifted entry returns");
            slot.entry = Some(value);
        }
    }

    /// The same for who has lifted it just now and knows that nobody can have removed it.
    #[inline]
    pub(crate) fn put_back(&mut self, index: u32, value: T) {
        if let Some(place) = self.place_of_lifted(index) {
            *place = Some(value);
        }
    }

    /// Ends the entry: from now on its name is stale. Gives the value unless it is lifted.
    pub(crate) fn remove(&mut self, index: u32, generation: u64) -> Option<T> {
        let slot = self.slot_mut(index, generation)?;
        slot.state = name(generation.wrapping_add(1)) ^ 1;
        let entry = slot.entry.take();
        self.retired.push(index);
        self.live -= 1;
        entry
    }

    /// Lets the slots of removed entries be used again.
    pub(crate) fn recycle(&mut self) {
        if !self.retired.is_empty() {
            self.free.append(&mut self.retired);
        }
    }

    /// The entries that are not lifted, in slot order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, u64, &T)> {
        let numbered = (0_u32..).zip(&self.slots);
        numbered.filter_map(|(index, slot)| Some((index, slot.generation(), slot.entry.as_ref()?)))
    }

    /// As [`Arena::iter`], to change them.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, u64, &mut T)> {
        let numbered = (0_u32..).zip(&mut self.slots);
        numbered.filter_map(|(index, slot)| {
            let generation = slot.generation();
            Some((index, generation, slot.entry.as_mut()?))
        })
    }

    /// The same without their names.
    #[inline]
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut().filter_map(|slot| slot.entry.as_mut())
    }

    /// What contradicts itself here, when nothing is lifted; see `Context::check_invariants`.
    #[cfg(feature = "sim")]
    pub(crate) fn contradiction(&self) -> Option<String> {
        let here = self.iter().count();
        let mut vacant: Vec<u32> = self.free.iter().chain(&self.retired).copied().collect();
        let listed = vacant.len();
        vacant.sort_unstable();
        vacant.dedup();
        let is_vacant = |index: &u32| self.generation(*index).is_none();
        let sound = here == self.live
            && vacant.len() == listed
            && listed + here == self.slots.len()
            && vacant.iter().all(is_vacant);
        let Self { live, slots, .. } = self;
        let slots = slots.len();
        (!sound).then(|| format!("{slots} slots: {live} live, {here} there, {listed} vacant"))
    }

    /// The slot of an entry, if that name is valid.
    fn slot_mut(&mut self, index: u32, generation: u64) -> Option<&mut Slot<T>> {
        let slot = self.slots.get_mut(index as usize)?;
        (slot.state == name(generation)).then_some(slot)
    }
}

/// The state of a live slot of that generation.
const fn name(generation: u64) -> u64 {
    generation << 1 | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_name_never_reaches_the_successor() {
        let mut arena = Arena::new();
        let (index, generation) = arena.insert(|_, _| 'a').unwrap();
        assert_eq!(arena.remove(index, generation), Some('a'));
        arena.recycle();
        let (again, next) = arena.insert(|_, _| 'b').unwrap();
        assert_eq!(again, index);
        assert_eq!(arena.get(index, generation), None);
        assert_eq!(arena.remove(index, generation), None);
        assert_eq!(arena.get(again, next), Some(&'b'));
    }

    #[test]
    fn a_slot_is_not_reused_before_recycle() {
        let mut arena = Arena::new();
        let (first, generation) = arena.insert(|_, _| ()).unwrap();
        arena.remove(first, generation);
        let (second, _) = arena.insert(|_, _| ()).unwrap();
        assert_ne!(first, second);
    }

    #[test]
    fn a_lifted_entry_is_absent_but_named() {
        let mut arena = Arena::new();
        let (index, generation) = arena.insert(|_, _| 1).unwrap();
        let value = arena.lift(index, generation).unwrap();
        assert_eq!(arena.generation(index), Some(generation));
        assert_eq!(arena.get(index, generation), None);
        assert_eq!(arena.lift(index, generation), None);
        arena.restore(index, generation, value + 1);
        assert_eq!(arena.get(index, generation), Some(&2));
    }

    /// RE-09: the generation is 63 bits wide, so it does not come round.
    #[test]
    fn re_09_names_stay_stale_after_many_reuses() {
        let mut arena = Arena::new();
        let (index, first) = arena.insert(|_, _| 0).unwrap();
        arena.remove(index, first);
        for round in 1..100_000_u64 {
            arena.recycle();
            let (again, generation) = arena.insert(|_, _| round).unwrap();
            assert_eq!((again, generation), (index, round));
            arena.remove(again, generation);
        }
        assert_eq!(arena.get(index, first), None);
        assert_eq!(arena.len(), 0);
    }
}
