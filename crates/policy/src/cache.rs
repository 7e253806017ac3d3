//! A bounded map from statement keys. What was not asked for lately is forgotten first.

use hashbrown::HashMap;

/// Two halves: new and re-used keys are in the young one; when it is full it becomes the old one, and what
/// was in the old one is forgotten. So at least a full half of the most recent keys is kept, for one hash
/// look-up and no book-keeping on a hit.
///
/// Keys are compared whole: two statements are the same only if all their bytes are.
#[derive(Debug)]
pub(crate) struct Cache<V> {
    young: HashMap<Box<[u8]>, V>,
    old: HashMap<Box<[u8]>, V>,
    young_bytes: usize,
    entries_max: usize,
    bytes_max: usize,
}

impl<V> Cache<V> {
    /// Each half holds at most `entries_max` keys and, but for the last one, `bytes_max` bytes of keys.
    pub(crate) fn new(entries_max: usize, bytes_max: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), young_bytes: 0, entries_max, bytes_max }
    }

    /// The value of `key`.
    pub(crate) fn get(&mut self, key: &[u8]) -> Option<&V> {
        if !self.old.is_empty() && !self.young.contains_key(key) {
            let (key, value) = self.old.remove_entry(key)?;
            self.put(key, value);
        }
        self.young.get(key)
    }

    /// Remembers `value`, in the place of what was there.
    pub(crate) fn insert(&mut self, key: &[u8], value: V) {
        self.old.remove(key);
        self.put(key.into(), value);
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.young = HashMap::new();
        self.old = HashMap::new();
        self.young_bytes = 0;
    }

    fn put(&mut self, key: Box<[u8]>, value: V) {
        if self.young.len() >= self.entries_max || self.young_bytes >= self.bytes_max {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        let length = key.len();
        if self.young.insert(key, value).is_none() {
            self.young_bytes = self.young_bytes.saturating_add(length);
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::Cache;

    #[test]
    fn what_is_used_stays_and_the_rest_is_forgotten() {
        let mut cache = Cache::new(4, 1_000);
        cache.insert(b"kept", 0);
        for number in 1..100u32 {
            cache.insert(format!("key {number}").as_bytes(), number);
            assert_eq!(cache.get(b"kept"), Some(&0), "after {number}");
            assert!(cache.len() <= 8);
        }
        assert_eq!(cache.get(b"key 1"), None);
        assert_eq!(cache.get(b"key 99"), Some(&99));
    }

    #[test]
    fn bytes_are_bounded_as_well_as_entries() {
        let mut cache = Cache::new(1_000, 100);
        for number in 0..100u32 {
            cache.insert(&[7; 60].iter().copied().chain(number.to_be_bytes()).collect::<Vec<u8>>(), number);
        }
        assert!(cache.len() <= 4, "two keys of 64 bytes in each half");
    }

    #[test]
    fn a_key_has_one_value() {
        let mut cache = Cache::new(1, 1_000);
        cache.insert(b"a", 1);
        cache.insert(b"b", 1);
        cache.insert(b"a", 2);
        assert_eq!(cache.get(b"a"), Some(&2));
        cache.clear();
        assert_eq!(cache.get(b"a"), None);
    }
}
