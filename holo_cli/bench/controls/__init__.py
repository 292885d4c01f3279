"""Controls of the referee: does `bench compare` find what is there, and nothing that is not?"""
