"""The job that lets the tags of one repository follow those of another.

`kind` is the job and its course, `source` and `target` are its two ends, `find` says which tags are
meant, `follow` has them followed, `signed` has what refers to them, `departed` what is gone;
`report` is what became of it all, and `attempt` what they have in common.
"""
