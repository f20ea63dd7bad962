"""The review page in a process of its own, that a test can kill.

python tests/support/review_server.py FOLDER PORT
"""

import sys
from pathlib import Path

from lima_ray.curation.candidate import Candidate
from lima_ray.curation.review.queue import ReviewItem
from lima_ray.curation.review.server import serve_review

PICKED, SPARE = 7, 2
REPLY = """Stir it **slowly**, {n} times.

- first the milk, see List<int> & <b>this</b>
- then the flour

```python
for _ in range({n}):
    stir("<milk>")
```

It holds $$x^2 = {n}$$ grams. <script>document.title = 'taken over'</script>"""


def candidates() -> list[ReviewItem]:
    """Return candidates of two sources, some of them spare."""
    found = []
    for source in ("cooking", "brewing"):
        for n in range(1, PICKED + SPARE + 1):
            turns = (f"How do I thicken sauce number {n} of {source}?", REPLY.format(n=n))
            url = f"https://{source}.example.org/a/{n}"
            one = Candidate(f"{source}/{n}", turns, source, source, 20 - n, "2014-01-21", url)
            found.append(ReviewItem(one, source, n <= PICKED, n))
    return found


if __name__ == "__main__":
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    serve_review(candidates(), folder, port=port, open_browser=False)
