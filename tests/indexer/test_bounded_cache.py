import threading

from hypothesis import given
from hypothesis import strategies as st

from indexer.bounded_cache import BoundedCache


def test_what_was_used_least_recently_goes_first():
    cache = BoundedCache(3)
    for key in "abc":
        cache.put(key, key.upper(), 1)
    assert cache.get("a") == "A"
    cache.put("d", "D", 1)
    assert [cache.get(key) for key in "abcd"] == ["A", None, "C", "D"]


def test_a_value_larger_than_the_cache_is_not_kept_and_drives_nothing_out():
    cache = BoundedCache(3)
    cache.put("a", "A", 2)
    cache.put("b", "B", 4)
    assert (cache.get("a"), cache.get("b"), cache.num_bytes) == ("A", None, 2)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 7))))
def test_bytes_are_those_of_what_is_kept_and_never_too_many(puts):
    cache = BoundedCache(10)
    for key, size in puts:
        cache.put(key, size, size)
        assert cache.get(key) == size
        assert cache.num_bytes == sum(kept for key in range(6) if (kept := cache.get(key)) is not None) <= 10


def test_threads_that_put_and_get_leave_the_count_right():
    cache = BoundedCache(50)

    def work(seed: int) -> None:
        for number in range(2_000):
            cache.put((number * seed) % 40, None, 1 + number % 5)
            cache.get(number % 40)

    threads = [threading.Thread(target=work, args=[seed]) for seed in (1, 3, 7, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0 <= cache.num_bytes <= 50
    assert cache.num_bytes == sum(size for _, size in cache._kept.values())
