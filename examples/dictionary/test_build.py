"""What every dictionary keeps; run before anything is measured. Frozen."""

import unittest

from build import build

LINES = [f'10.0.0.{i} "GET /index.html HTTP/1.1" 200' for i in range(200)]


class TestBuild(unittest.TestCase):
    def test_it_is_small_bytes(self) -> None:
        made = build(LINES)
        self.assertIsInstance(made, bytes)
        self.assertLessEqual(len(made), 2048)

    def test_the_same_lines_give_the_same(self) -> None:
        self.assertEqual(build(LINES), build(list(LINES)))

    def test_no_line_is_no_error(self) -> None:
        self.assertIsInstance(build([]), bytes)


if __name__ == "__main__":
    unittest.main()
