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
    generation: u64,
    entry: Entry<T>,
}

#[derive(Debug)]
enum Entry<T> {
    Here(T),
    /// Taken out to be worked on; its owner puts it back or removes it.
    Lifted,
    Vacant,
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
        let generation = slot.generation;
        slot.entry = Entry::Here(make(index, generation));
        self.live += 1;
        Some((index, generation))
    }

    fn grow(&mut self) -> Option<u32> {
        let index = self.slots.len();
        if index > INDEX_MASK {
            return None;
        }
        self.slots.push(Slot {
            generation: 0,
            entry: Entry::Vacant,
        });
        u32::try_from(index).ok()
    }

    pub(crate) fn get(&self, index: u32, generation: u64) -> Option<&T> {
        match &self.slot(index, generation)?.entry {
            Entry::Here(value) => Some(value),
            Entry::Lifted | Entry::Vacant => None,
        }
    }

    pub(crate) fn get_mut(&mut self, index: u32, generation: u64) -> Option<&mut T> {
        match &mut self.slot_mut(index, generation)?.entry {
            Entry::Here(value) => Some(value),
            Entry::Lifted | Entry::Vacant => None,
        }
    }

    /// The whole generation of the entry now at `index`, if there is one.
    pub(crate) fn generation(&self, index: u32) -> Option<u64> {
        let slot = self.slots.get(index as usize)?;
        (!matches!(slot.entry, Entry::Vacant)).then_some(slot.generation)
    }

    /// Takes the entry out; its name stays valid until [`Arena::remove`].
    pub(crate) fn lift(&mut self, index: u32, generation: u64) -> Option<T> {
        let slot = self.slot_mut(index, generation)?;
        match std::mem::replace(&mut slot.entry, Entry::Lifted) {
            Entry::Here(value) => Some(value),
            other => {
                slot.entry = other;
                None
            }
        }
    }

    /// Puts back what [`Arena::lift`] took.
    pub(crate) fn restore(&mut self, index: u32, generation: u64, value: T) {
        if let Some(slot) = self.slot_mut(index, generation) {
            debug_assert!(
                matches!(slot.entry, Entry::Lifted),
                "only a lifted entry returns"
            );
            slot.entry = Entry::Here(value);
        }
    }

    /// Ends the entry: from now on its name is stale. Gives the value unless it is lifted.
    pub(crate) fn remove(&mut self, index: u32, generation: u64) -> Option<T> {
        let slot = self.slot_mut(index, generation)?;
        let entry = std::mem::replace(&mut slot.entry, Entry::Vacant);
        if matches!(entry, Entry::Vacant) {
            return None;
        }
        slot.generation = slot.generation.wrapping_add(1);
        self.retired.push(index);
        self.live -= 1;
        match entry {
            Entry::Here(value) => Some(value),
            Entry::Lifted | Entry::Vacant => None,
        }
    }

    /// Lets the slots of removed entries be used again.
    pub(crate) fn recycle(&mut self) {
        self.free.append(&mut self.retired);
    }

    /// The entries that are not lifted, in slot order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, u64, &T)> {
        let numbered = (0_u32..).zip(&self.slots);
        numbered.filter_map(|(index, slot)| match &slot.entry {
            Entry::Here(value) => Some((index, slot.generation, value)),
            Entry::Lifted | Entry::Vacant => None,
        })
    }

    /// As [`Arena::iter`], to change them.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, u64, &mut T)> {
        let numbered = (0_u32..).zip(&mut self.slots);
        numbered.filter_map(|(index, slot)| match &mut slot.entry {
            Entry::Here(value) => Some((index, slot.generation, value)),
            Entry::Lifted | Entry::Vacant => None,
        })
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

    fn slot(&self, index: u32, generation: u64) -> Option<&Slot<T>> {
        let slot = self.slots.get(index as usize)?;
        (slot.generation == generation).then_some(slot)
    }

    fn slot_mut(&mut self, index: u32, generation: u64) -> Option<&mut Slot<T>> {
        let slot = self.slots.get_mut(index as usize)?;
        (slot.generation == generation).then_some(slot)
    }
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

    /// RE-09: the generation is 64 bits wide, so it does not come round.
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
