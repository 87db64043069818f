"""Who goes first where the stages of a machine share its cores: whoever is nearest to the words.

Work downstream is nearer to an answer and frees what upstream waits for, so a decoder may take all
cores, an encoder and the children that read what is left, and the children of later videos what
nobody else wants: shared evenly, two long videos would both be slow to their first word.
On a Ray that vidray starts; nodes of a cluster want RAY_worker_niceness=0 for it, or all are near
the end of the scale. A video keeps the place it had when it was opened.
Niceness: each step is 1.25 times less of a core that both want, 19 the least there is.
"""

ENCODER = 5
LATER_VIDEOS = 19  # their children; those of the first one give way as DecodeLimits say
