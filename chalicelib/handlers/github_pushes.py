"""A worked example: how often each branch was pushed to.

A counter is the effect that shows a double count at once, and that exactly-once processing keeps right.
"""

from typing import Any

from chalicelib.postern import Event, on


@on("github", "push")
def count_push(event: Event, db: Any) -> None:
    push = event.payload
    db.execute(
        """
        INSERT INTO public.github_pushes AS branch
          (repository, ref, pushes, commits, last_pusher, last_push_at)
        VALUES (%(repository)s, %(ref)s, 1, %(commits)s, %(pusher)s, %(at)s)
        ON CONFLICT (repository, ref) DO UPDATE
        SET pushes = branch.pushes + 1,
            commits = branch.commits + excluded.commits,
            last_pusher = CASE WHEN excluded.last_push_at >= branch.last_push_at
                               THEN excluded.last_pusher ELSE branch.last_pusher END,
            last_push_at = greatest(branch.last_push_at, excluded.last_push_at)
        """,
        {
            "repository": push["repository"]["full_name"],
            "ref": push["ref"],
            "commits": len(push.get("commits", [])),
            "pusher": push.get("pusher", {}).get("name"),
            "at": event.received_at,
        },
    )
